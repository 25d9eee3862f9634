#!/bin/sh
# Makes this machine a node of an experiment (script.py says how); run as root, once or again. Above stand:
# NAME, HOSTS (address names), APART (address network), SHAPES
# (address|vital|queue out|queue in), ROUTES (destination neighbour), FORWARDS,
# SETTINGS (client.conf of services), NETWORKS (over which daemons find the ways), ROUTING (what the
# kit is told of those), KIT (a zip, compressed, in base64), STARTUP, LOG.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
: >"$LOG"
exec >>"$LOG" 2>&1 </dev/null
BEGIN='# hosts of the experiment begin' END='# hosts of the experiment end'

echo "node $NAME"
hostname "$NAME" || echo "the machine keeps its name"

# The file is written, not replaced: where the machine is a container it may be a mount.
others=$(sed "/^$BEGIN\$/,/^$END\$/d" /etc/hosts)
printf '%s\n' "$others" "$BEGIN" "$HOSTS" "$END" >/etc/hosts

# patiently COMMAND: until it succeeds; `missing` is what did not, after a minute.
patiently() {
    attempts=60
    until "$@"; do
        attempts=$((attempts - 1))
        [ "$attempts" -gt 0 ] || return 1
        sleep 1
    done
}

device_of() { ip -o -4 address show | grep -F " $1/" | sed 's/^[0-9]*: *\([^ ]*\) .*/\1/'; }

# ban SIDE NETWORK DEVICE: drop what enters there and goes to, or says that it comes from, that network.
ban() {
    said=$(ip rule add pref 1 iif "$3" "$1" "$2" type blackhole 2>&1) || case $said in *xists*) ;; *) return 1 ;; esac
}

# keep_apart: succeed when all bans hold. They come before the machine's own addresses, which belong to those networks too.
keep_apart() {
    missing= open=
    ip rule add pref 2 lookup local 2>/dev/null
    while read -r address network; do
        [ -n "$address" ] || continue
        device=$(device_of "$address")
        if [ -z "$device" ]; then
            missing="$missing $address"
        elif ! ban to "$network" "$device" || ! ban from "$network" "$device"; then
            missing="$missing $address" open="$open $device"
        fi
    done <<END_OF_APART
$APART
END_OF_APART
    ip rule del pref 0 2>/dev/null
    [ -z "$missing" ] && ! ip rule show | grep -q '^0:'
}

# is_asked NETWORK DEVICE: whether such a ban is still wanted.
is_asked() {
    while read -r address asked; do
        [ "${asked%/32}" = "$1" ] && [ "$(device_of "$address")" = "$2" ] && return
    done <<END_OF_APART
$APART
END_OF_APART
    return 1
}

# lift: take back the bans of an earlier run that nobody asks for any more; without any, rules are as they were.
lift() {
    ip rule show | grep '^1:' | while read -r _ _ network _ rest; do
        side=from
        if [ "$network" = all ]; then
            side=to network=${rest%% *} rest=${rest#* iif }
        fi
        device=${rest%% *}
        is_asked "${network%/32}" "$device" || ip rule del pref 1 iif "$device" "$side" "$network" type blackhole
    done
    if [ -z "$APART" ] && ip rule show | grep -q '^2:.*local'; then
        ip rule add pref 0 lookup local && ip rule del pref 2 lookup local
    fi
}

if [ -n "$APART" ]; then
    echo 0 2>/dev/null >/proc/sys/net/ipv4/ip_forward
    if ! patiently keep_apart; then
        echo "parties are not kept apart at$missing, so nothing is forwarded"
        FORWARDS=
        for device in $open; do
            ip link set dev "$device" down
        done
    else
        lift
    fi
else
    lift
fi

if [ -n "$FORWARDS" ]; then
    echo 1 >/proc/sys/net/ipv4/ip_forward || echo "this machine may not forward"
fi

has_device() { [ -n "$(device_of "$1")" ]; }

# shape DEVICE OUT IN: what enters passes an intermediate device, because queues are on the way out alone.
shape() {
    [ -z "$2" ] || tc qdisc replace dev "$1" root $2 || return 1
    [ -n "$3" ] || return 0
    between="in-$1"
    [ ${#between} -le 15 ] || between="in-$(ip -o link show dev "$1" | cut -d: -f1)" # names are no longer (IFNAMSIZ)
    ip link show dev "$between" >/dev/null 2>&1 || ip link add "$between" type ifb || return 1
    ip link set dev "$between" up && tc qdisc replace dev "$between" root $3 || return 1
    tc qdisc del dev "$1" ingress 2>/dev/null
    tc qdisc add dev "$1" ingress &&
        tc filter add dev "$1" parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev "$between"
}

# A rate that cannot be had is told; a link without its delay or loss is none.
while IFS='|' read -r address vital out in; do
    [ -n "$address" ] || continue
    patiently has_device "$address"
    device=$(device_of "$address")
    if ! shape "$device" "$out" "$in"; then
        echo "the link at $address is not as described ($out; $in): this machine cannot do that"
        [ -z "$vital" ] || ip link set dev "$device" down
    fi
done <<END_OF_SHAPES
$SHAPES
END_OF_SHAPES

# Ways that daemons find are preferred to those that are set: OSPF's distance is 110, theirs 120 (the first octet of the metric).
metric=
if [ -z "$NETWORKS" ]; then
    :
elif [ -z "$ROUTING" ]; then
    echo "the experiment is too large for FRR's settings to come along, so its ways are as computed"
elif [ -x /usr/lib/frr/zebra ] && [ -x /usr/lib/frr/ospfd ]; then
    metric=$((120 << 24))
    SETTINGS="$SETTINGS$ROUTING"
else
    echo "this machine has no FRR, so its ways are as computed"
fi

OURS=250 # rt_protos: routes that this script set

# set_routes: succeed when all of them hold.
set_routes() {
    missing=
    while read -r destination via; do
        [ -z "$destination" ] || ip route replace "$destination" via "$via" proto $OURS ${metric:+metric "$metric"} ||
            missing="$missing $destination"
    done <<END_OF_ROUTES
$ROUTES
END_OF_ROUTES
    [ -z "$missing" ]
}

patiently set_routes || echo "no route to$missing"

# Ways of an earlier run that nobody asks for any more; busybox does not tell whose a route is, so there they stay.
ip route show | grep " proto $OURS " | while read -r destination _ via _; do
    printf '%s\n' "$ROUTES" | sed 's|/32 | |' | grep -qxF "$destination $via" || ip route del "$destination" via "$via" proto $OURS
done

# connected: succeed when it is on all networks over which its daemons are to speak.
connected() {
    missing=
    for network in $NETWORKS; do
        ip route | grep -q "^$network dev" || missing="$missing $network"
    done
    [ -z "$missing" ]
}

[ -z "$metric" ] || patiently connected || echo "not on$missing"

# Services are the kit's business. The start command comes after it, and finds accounts and files there.
if [ -n "$SETTINGS" ]; then
    folder=/usr/local/federation
    unpack='import base64, sys, zlib; open(sys.argv[1], "wb").write(zlib.decompress(base64.b64decode(sys.stdin.read())))'
    mkdir -p "$folder/etc"
    (umask 077 && printf '%s' "$SETTINGS" >"$folder/etc/client.conf")
    if ! printf '%s' "$KIT" | python3 -c "$unpack" "$folder/kit.pyz"; then
        echo "this machine has no Python, so it takes part in no service, and its ways are as computed"
    else
        python3 "$folder/kit.pyz" apply || echo "not all that services want is done"
    fi
fi

if [ -n "$STARTUP" ]; then
    echo "starting: $STARTUP"
    cd / && setsid sh -c "$STARTUP" &
fi
