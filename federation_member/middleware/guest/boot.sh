#!/bin/sh
# Run as root at every start of a lent virtual machine, when its files in /etc/fed are written; /etc/fed/setup was written for
# this machine, and a file `alone` says that nothing else sets it up (no cloud-init). Repeating it changes nothing. For the POSIX
# shell, because an image may have no more.

umask 022
mkdir -p /var/log /root /home
exec </dev/null >>/var/log/fed-boot.log 2>&1
cd /etc/fed || exit 1
. ./functions
has() { command -v "$1" >/dev/null; }
is_systemd() { [ -d /run/systemd/system ]; }

# Accounts, keys and the user's files come once in a machine's life; a machine made from another's snapshot starts a new one.
if cmp -s host_key.pub settled; then
    is_new=
else
    is_new=1
    . ./setup
    cp host_key.pub settled
fi

# serve_openssh: with the host key and the certificates of ours; an sshd that runs is told.
serve_openssh() {
    [ -e /etc/ssh/sshd_config ] || : >/etc/ssh/sshd_config
    if grep -qi '^[[:space:]]*Include[[:space:]]*/etc/ssh/sshd_config.d/' /etc/ssh/sshd_config; then
        mkdir -p /etc/ssh/sshd_config.d
        cp sshd_config /etc/ssh/sshd_config.d/10-fed.conf
    elif ! grep -q '^HostKey /etc/fed/host_key$' /etc/ssh/sshd_config; then
        cat sshd_config /etc/ssh/sshd_config >sshd_config.whole && cat sshd_config.whole >/etc/ssh/sshd_config
    fi
    if is_systemd; then
        systemctl --no-block try-reload-or-restart ssh.service sshd.service
    elif [ -e alone ]; then
        mkdir -p /run/sshd
        forever "$(command -v sshd)" -D & # which runs itself anew, so it wants its whole path
    fi
}

if has sshd; then
    serve_openssh
elif [ -e alone ]; then
    others=$(pidof dropbear) && kill $others # that the image started, with a key of its own
    forever serve_dropbear &
fi

if [ -e alone ]; then
    hostname "$(cat /etc/hostname)"
    grep -q "[[:space:]]$(hostname)\$" /etc/hosts || echo "127.0.1.1 $(hostname)" >>/etc/hosts
fi

if [ -e tunnel ]; then
    chown fed tunnel_key
    if is_systemd; then
        cp tunnel.service /etc/systemd/system/fed-tunnel.service
        systemctl daemon-reload
        systemctl enable fed-tunnel.service
        systemctl --no-block start fed-tunnel.service
    else
        ./tunnel &
    fi
fi

if [ -n "$is_new" ] && [ -e user-script ]; then
    (cd / && exec /etc/fed/user-script) 2>&1 | tee -a /var/log/cloud-init-output.log >/dev/console &
fi
