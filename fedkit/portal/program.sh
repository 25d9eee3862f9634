
# Where the image has our program, and Python and `ip` as it needs them: be a portal by it, which sees to everything else.
PROGRAM=/usr/local/lib/fedmesh-portal
FITS='
import subprocess, sys
sys.path.insert(0, sys.argv[1])
import _cffi_backend # which only the Python can that it was built for
subprocess.run(["ip", "-j", "link"], check=True) # as our program finds it, and not a shell that prefers its own
'
if python3 -I -B -c "$FITS" "$PROGRAM/lib" >/dev/null 2>&1; then
    {
        printf 'state = "%s"\n%s\n' "$STATE" "$SETTINGS"
        for crossing in $crossings; do
            printf '[[crossing]]\ntag = %s\n' "${crossing%%:*}"
            printf 'interface = "%s"\nbridge = "br%s"\n' "${crossing#*:}" "${crossing%%:*}"
            echo "$LINES" | sed -n "s/^${crossing%%:*} //p"
        done
    } >portal.toml
    forever "$PROGRAM/portal" portal.toml
elif [ -n "$LINES" ]; then # a way that is not as it was asked for is none: an experiment would measure something else
    echo "This image has no program for a portal that delays or loses frames."
    exit 1
fi
