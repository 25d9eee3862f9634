#!/bin/sh
# Makes this machine a portal (script.py says how); run as root, once or again. Above stand:
# TAGS, PRIVATE_KEY, PEER_KEY, PORT, TUNNEL, STATE, SETTINGS, LINES; HOST and HOST_KEY of the peer at the end that connects;
# RELAY_HOST, RELAY_PORT and RELAY_KEY of a tunnel server for the end that waits, if its machine has none of its own.

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
printf 'peer %s\nrelay %s\n' "$HOST_KEY" "$RELAY_KEY" >known_hosts
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

# dial ALIAS PORT …: by the portal's key, to a server whose key is known by that name.
dial() {
    alias=$1 port=$2
    shift 2
    ssh -F none -N -p "$port" -i key -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile=known_hosts \
        -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes -o HostKeyAlias="$alias" -o UpdateHostKeys=no \
        -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o ExitOnForwardFailure=yes "$@"
}

if [ -n "$RELAY_HOST" ]; then
    forever dial relay "$RELAY_PORT" -R "$TUNNEL:0:127.0.0.1:$PORT" "tunnel@$RELAY_HOST" &
elif [ -z "$HOST" ]; then
    forever ssh -F /etc/ssh/ssh_config.d/fed.conf -N -R "$TUNNEL:0:127.0.0.1:$PORT" tunnel &
fi
