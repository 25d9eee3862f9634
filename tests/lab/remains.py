"""What an experiment may leave at a site: its secrets, wherever they stand, and whatever else is not as it was.

python -m tests.lab.remains secrets MEMBER    what the book in that directory and the machines here know, as JSON [[what, text], …]
python -m tests.lab.remains find              reads that from stdin; prints what of it stands in which files of the whole lab
python -m tests.lab.remains look DIRECTORY    how this host is, and which files there are below the directory, as JSON

A private key is looked for by its 32 octets and by the lines of its text, each as it is and within base64.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from deploy.lab.client import Lab
from deploy.lab.places import PYTHON, SOURCES, directory

Secrets = list[tuple[str, str]]
Look = dict[str, list[str]]
PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----\n(.*?)\n-----END \1-----\n?", re.DOTALL)
TOLD = re.compile(r"^(?:ControlKey|SMBPassword): (\S+)|^Child: \S+ \S+ (\S+)", re.MULTILINE)
PUBLIC_LINES = 2  # of an OpenSSH private key: they hold its public half
PLACES = ("/run", "/dev/shm")
NETWORK = (
    "ip route show table all",
    "ip -6 route show table all",
    "ip rule",
    "ip -6 rule",
    "nft list ruleset",
    "tc qdisc",
)
CHANGING = re.compile(r" linkdown| counter packets \d+ bytes \d+| expires \S+")
CONFIGURATION = ("passwd", "group", "shadow", "gshadow", "hosts", "ssh/sshd_config")


def _at(lab: Lab, host: str, *words: str, text: str | None = None) -> Any:
    command = ["env", f"PYTHONPATH={SOURCES}", "PYTHONDONTWRITEBYTECODE=1", str(PYTHON), "-m", "tests.lab.remains"]
    return json.loads(lab.run(host, [*command, *words], text=text, timeout=180).stdout)


def secrets_at(lab: Lab, site: str) -> Secrets:
    """What a site knows of all experiments."""
    found = _at(lab, site, "secrets", str(directory(lab.plan.site(site), "member")))
    return [(f"{what} at {site}", text) for what, text in found]


def found_in(lab: Lab, secrets: Secrets) -> dict[str, list[str]]:
    """Which of these stand in which files."""
    found: dict[str, list[str]] = _at(lab, "internet", "find", text=json.dumps(secrets))
    return found


def looks(lab: Lab, *sites: str) -> dict[str, Look]:
    """How the hosts of some sites are."""
    hosts = [f"{site}/{zone}" for site in sites for zone in ("rt", "dmz", "lan")]
    return {host: _at(lab, host, "look", str(directory(lab.plan.site(host.split("/")[0]), ""))) for host in hosts}


# At the site


def _secrets(member: Path) -> Iterator[tuple[str, str]]:
    with sqlite3.connect(f"file:{member / 'member.db'}?mode=ro", uri=True, timeout=10) as database:
        for spec, state, tunnel in database.execute("SELECT spec, segment, tunnel_key FROM leases"):
            yield from _of_lease(json.loads(spec), json.loads(state or "{}"), tunnel)
        for (spec,) in database.execute("SELECT spec FROM orders"):
            yield from _of_lease(json.loads(spec), {}, None)
        for (key,) in database.execute("SELECT private FROM experiments"):
            yield "the experiment's key", bytes(key).decode()
        for (key,) in database.execute("SELECT private_key FROM access_grants WHERE private_key IS NOT NULL"):
            yield "a grant's key", key
    for path in Path("/proc").glob("[0-9]*/root/etc/fed/*_key"):
        yield "a machine's key", path.read_text()


def _of_lease(spec: dict[str, Any], state: dict[str, Any], tunnel: str | None) -> Iterator[tuple[str, str]]:
    for text in spec.get("settings", {}).values():
        yield from (("what services told nodes", one or other) for one, other in TOLD.findall(text))
    if data := spec.get("user_data"):
        yield from (("user data", line) for line in data.splitlines()[3::50] if len(line) > 40)
    yield from (("a portal's key", key) for key in state.get("keys", {}).values())
    yield "the lender's key for its nodes", state.get("control", "")
    yield "the login key, sealed", state.get("credentials") or ""
    yield "a tunnel key", tunnel or ""


def _needles(text: str) -> Iterator[bytes]:
    if not (keys := PEM.findall(text)):
        yield text.encode()
    for kind, body in keys:
        lines = body.splitlines()
        yield from (line.encode() for line in (lines[PUBLIC_LINES:] if kind.startswith("OPENSSH") else lines))
        pem = f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode()
        key = load_ssh_private_key(pem, None) if kind.startswith("OPENSSH") else load_pem_private_key(pem, None)
        if isinstance(key, Ed25519PrivateKey | X25519PrivateKey):
            yield key.private_bytes_raw()


def _within_base64(needle: bytes) -> Iterator[bytes]:
    """What of it can be told in base64 of a longer text, wherever it begins there."""
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + needle)
        yield encoded[(0, 2, 3)[shift] : (shift + len(needle)) * 8 // 6]


def _find(secrets: Secrets) -> dict[str, list[str]]:
    wanted: dict[bytes, set[str]] = defaultdict(set)
    for what, text in secrets:
        for needle in _needles(text):
            for form in (needle, *_within_base64(needle)):
                wanted[form].add(what)
    found: dict[str, set[str]] = defaultdict(set)
    for path in _files():
        content = path.read_bytes()
        for what in (what for needle in wanted if needle in content for what in wanted[needle]):
            found[what].add(str(path))
    return {what: sorted(files) for what, files in found.items()}


def _files() -> Iterator[Path]:
    """All of the lab's own; what is mounted there from elsewhere is not."""
    for place in PLACES:
        device = os.stat(place).st_dev
        for folder, folders, names in os.walk(place):
            folders[:] = [name for name in folders if os.lstat(f"{folder}/{name}").st_dev == device]
            for path in (Path(folder, name) for name in names):
                if stat.S_ISREG((found := path.lstat()).st_mode) and found.st_dev == device:
                    yield path


def _look(place: Path) -> Look:
    said = {line: CHANGING.sub("", _said(*line.split())).splitlines() for line in NETWORK}
    links = json.loads(_said("ip", "-json", "-details", "addr"))
    said["links"] = [
        f"{one['ifname']} {one.get('master')} {one['mtu']} {one.get('linkinfo', {}).get('info_kind')} "
        f"{[address['local'] for address in one['addr_info'] if address['family'] == 'inet']}"
        for one in links
    ]
    said["mounts"] = Path("/proc/self/mounts").read_text().splitlines()
    said["files"] = sorted(str(path) for path in place.rglob("*") if not path.name.endswith((".db-wal", ".db-shm")))
    for name in CONFIGURATION:
        path = Path("/etc", name)
        said[name] = path.read_text().splitlines() if path.exists() else []
    return said


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["secrets", member]:
            print(json.dumps(sorted({(what, text) for what, text in _secrets(Path(member)) if text})))
        case ["find"]:
            print(json.dumps(_find(json.load(sys.stdin))))
        case ["look", place]:
            print(json.dumps(_look(Path(place))))
