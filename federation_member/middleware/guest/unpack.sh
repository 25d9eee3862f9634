#!/bin/sh
# Sets up this machine for the federation of clouds that lends it: writes its files, then runs /etc/fed/boot.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

# file PATH MODE CONTENT [base64]
file() {
    mkdir -p "${1%/*}"
    rm -f "$1.new"
    if [ -n "$4" ]; then
        (umask 077 && printf %s "$3" | base64 -d >"$1.new")
    else
        (umask 077 && printf %s "$3" >"$1.new")
    fi
    chmod "$2" "$1.new"
    mv -f "$1.new" "$1"
}
