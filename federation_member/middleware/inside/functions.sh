# Functions that the first program of every lent machine calls; /etc/fed/setup was written for this machine and uses them too.
# For the POSIX shell, because an image may have no more.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LOGIN_SHELL=/bin/sh
[ -x /bin/bash ] && LOGIN_SHELL=/bin/bash

home_of() { sed -n "s|^$1:[^:]*:[^:]*:[^:]*:[^:]*:\([^:]*\):.*|\1|p" /etc/passwd; }

# account NAME SHELL HOME GECOS: add it unless it exists. With a single id (ONE_ID) every account shares it.
account() {
    grep -q "^$1:" /etc/passwd && return
    id=0
    if [ -z "$ONE_ID" ]; then
        id=1000
        while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd; do id=$((id + 1)); done
        echo "$1:x:$id:" >>/etc/group
    fi
    echo "$1:x:$id:$id:$4:$3:$2" >>/etc/passwd
    echo "$1:*:19000:0:99999:7:::" >>/etc/shadow
    grep -qx "$2" /etc/shells || echo "$2" >>/etc/shells
    mkdir -p "$3" && chown "$id:$id" "$3"
}

# authorize NAME FILE: the keys in FILE may log in as NAME.
authorize() {
    home=$(home_of "$1")
    mkdir -p -m 700 "$home/.ssh"
    cat "$2" >>"$home/.ssh/authorized_keys"
    chmod 600 "$home/.ssh/authorized_keys"
    chown -R "$1" "$home/.ssh"
}

# put FILE PATH OWNER MODE [append]
put() {
    mkdir -p "$(dirname "$2")"
    if [ "$5" = append ]; then cat "$1" >>"$2"; else cat "$1" >"$2"; fi
    chown "$3" "$2"
    chmod "$4" "$2"
    rm -f "$1"
}

# forever COMMAND: start it again whenever it ends; wait longer each time that it did not last.
forever() {
    pause=1
    while :; do
        began=$(date +%s)
        "$@"
        [ $(($(date +%s) - began)) -gt 60 ] && pause=1
        sleep "$pause" || return # what it stands on is gone
        pause=$((pause * 2 > 30 ? 30 : pause * 2))
    done
}

serve_dropbear() { dropbear -F -s -p 22 -r /etc/fed/host_key.dropbear; }
