#!/bin/sh
# Process 1 of a lent machine: accounts, keys and files first, then the ssh server and the tunnel, then the user's script.
# Everything that it needs lies in /etc/fed. For the POSIX shell, because an image may have no more.

export HOME=/root
umask 022
mkdir -p /var/log /run/sshd /root /home
exec </dev/null >/var/log/boot.log 2>&1
cd /etc/fed || exit 1
. ./functions

serve_openssh() { /usr/sbin/sshd -D -f /etc/fed/sshd_config; }
hold_tunnel() { ssh -N -R ssh:0:127.0.0.1:22 tunnel; }

. ./setup

if [ -n "$ONE_ID" ]; then
    dropbearconvert openssh dropbear host_key host_key.dropbear
    forever serve_dropbear &
else
    forever serve_openssh &
fi
if [ -e tunnel_key ]; then
    chown fed tunnel_key
    forever hold_tunnel &
fi
if [ -e user-script ]; then
    (cd / && exec /etc/fed/user-script) >/var/log/cloud-init-output.log 2>&1 &
fi
while :; do wait; sleep 60; done # as process 1 it also takes leave of every orphan
