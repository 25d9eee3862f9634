
# Else by OpenSSH: a connection, a tap and a bridge for each crossing.

# make_tap NAME: one that stays while nobody holds it.
make_tap() {
    if command -v tunctl >/dev/null; then tunctl -t "$1"; else ip tuntap add dev "$1" mode tap; fi
}

for switch in /proc/sys/net/bridge/bridge-nf-call-*; do # frames pass as they are, and no packet filter looks at them
    [ ! -e "$switch" ] || echo 0 >"$switch"
done
for crossing in $crossings; do
    tag=${crossing%%:*} inside=${crossing#*:}
    ip link show dev "br$tag" >/dev/null 2>&1 || ip link add "br$tag" type bridge
    for setting in multicast_snooping=0 group_fwd_mask=0xfff8; do # all frames that the kernel lets a bridge pass
        (echo "${setting#*=}" >"/sys/class/net/br$tag/bridge/${setting%=*}") 2>/dev/null
    done
    ip link delete "tap$tag" >/dev/null 2>&1 # one that our program left would hand super-frames to whoever cannot tell them
    make_tap "tap$tag"
    ip address flush dev "$inside"
    for port in "$inside" "tap$tag"; do
        ip link set "$port" master "br$tag"
        ip link set "$port" up
    done
    ip rule add pref 1 iif "br$tag" type blackhole # who is on a crossing speaks to its other end, and not to or through this machine
    ip link set "br$tag" up
done
ip rule add pref 2 lookup local && ip rule del pref 0

# Tell how it is, in the words of our program (status.py): ssh holds a tap, which so has a carrier, while it is joined.
tell() {
    while :; do
        joined=true
        for tag in $TAGS; do
            case $(ip link show dev "tap$tag") in *LOWER_UP*) ;; *) joined=false ;; esac
        done
        echo "{\"joined\": $joined, \"plane\": \"classic\"}" >"$STATE/brief.json.new"
        mv "$STATE/brief.json.new" "$STATE/brief.json"
        sleep 1
    done
}
[ -z "$is_watched" ] || tell &

if [ -n "$HOST" ]; then
    for tag in $TAGS; do
        forever dial peer "$PORT" -o Tunnel=ethernet -w "$tag:$tag" "root@$HOST" &
    done
else
    printf 'restrict,command="false" %s\n' "$PEER_KEY" >peers
    cat >sshd_config <<END
Port $PORT
ListenAddress 127.0.0.1
HostKey /etc/fed/host_key
AuthorizedKeysFile /etc/fed/portal/peers
AllowUsers root
PermitRootLogin prohibit-password
AuthenticationMethods publickey
PermitTunnel ethernet
AllowTcpForwarding no
AllowStreamLocalForwarding no
X11Forwarding no
AllowAgentForwarding no
PermitTTY no
StrictModes no
ClientAliveInterval 5
ClientAliveCountMax 3
PidFile none
END
    forever "$(command -v sshd)" -D -e -f /etc/fed/portal/sshd_config &
fi
wait
