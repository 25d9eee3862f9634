#!/bin/sh
# Makes this machine a portal (script.py says how); run as root, once or again. Above stand:
# TAGS, PRIVATE_KEY, PEER_KEY, PORT, TUNNEL, STATE, SETTINGS; HOST and HOST_KEY of the peer at the end that connects.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 077
exec >>/var/log/portal.log 2>&1 </dev/null
[ -d "$STATE" ] && is_watched=yes # by who lent the machine
mkdir -p /etc/fed/portal /dev/net /run/sshd "$STATE"
cd /etc/fed/portal || exit 1
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
printf '%s\n' "$PRIVATE_KEY" >key
printf '%s\n' "$PEER_KEY" >peer.pub
printf '%s\n' "$HOST_KEY" >host.pub
[ -z "$is_watched" ] || echo '{"joined": false}' >"$STATE/brief.json" # it will say more when it knows

# Whatever the interfaces are called here: the first belongs to no crossing, the others follow in the order of the crossings.
set -- $(ip -o link show | sed 's/^[0-9]*: *\([^:@]*\).*/\1/' | grep -v -x -e lo -e 'br[0-9]*' -e 'tap[0-9]*')
crossings= # TAG:INTERFACE of each
for tag in $TAGS; do
    shift
    crossings="$crossings $tag:$1"
done

# forever COMMAND: start it again whenever it ends.
forever() {
    while :; do
        "$@"
        sleep 1
    done
}

[ -n "$HOST" ] || forever ssh -F /etc/ssh/ssh_config.d/fed.conf -N -R "$TUNNEL:0:127.0.0.1:$PORT" tunnel &
