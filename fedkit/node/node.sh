#!/bin/sh
# Makes this machine a node of an experiment (script.py says how); run as root, once or again. Above stand:
# NAME, HOSTS (address names), ROUTES (destination neighbour), FORWARDS, STARTUP, LOG.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec >"$LOG" 2>&1 </dev/null
BEGIN='# hosts of the experiment begin' END='# hosts of the experiment end'
ATTEMPTS=60

echo "node $NAME"
hostname "$NAME" || echo "the machine keeps its name"

# The file is written, not replaced: where the machine is a container it may be a mount.
others=$(sed "/^$BEGIN\$/,/^$END\$/d" /etc/hosts)
printf '%s\n' "$others" "$BEGIN" "$HOSTS" "$END" >/etc/hosts

if [ -n "$FORWARDS" ]; then
    echo 1 >/proc/sys/net/ipv4/ip_forward || echo "this machine may not forward"
fi

# set_routes: succeed when all of them hold.
set_routes() {
    missing=
    while read -r destination via; do
        [ -z "$destination" ] || ip route replace "$destination" via "$via" || missing="$missing $destination"
    done <<END_OF_ROUTES
$ROUTES
END_OF_ROUTES
    [ -z "$missing" ]
}

until set_routes; do
    ATTEMPTS=$((ATTEMPTS - 1))
    if [ "$ATTEMPTS" -le 0 ]; then
        echo "no route to$missing"
        break
    fi
    sleep 1
done

if [ -n "$STARTUP" ]; then
    echo "starting: $STARTUP"
    cd / && setsid sh -c "$STARTUP" &
fi
