#!/bin/sh
# Holds the tunnel named ssh, to the machine's own ssh server, for as long as the machine runs.

cd /etc/fed || exit 1
. ./functions

hold() {
    if ssh -V 2>&1 | grep -q OpenSSH; then
        ssh -F /etc/ssh/ssh_config.d/fed.conf -N -R ssh:0:127.0.0.1:22 tunnel
    else
        mkdir -p dropbear/.ssh
        cp tunnel_known_hosts dropbear/.ssh/known_hosts
        HOME=/etc/fed/dropbear dbclient -N -K 15 -o ExitOnForwardFailure=yes -i tunnel_key.dropbear \
            -R ssh:0:127.0.0.1:22 "$(cat tunnel_address)"
    fi
}

forever hold
