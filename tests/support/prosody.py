"""Two real Prosody servers on loopback addresses, without root or DNS: each a site's, with TLS and certificates verified.

    with prosody_pair(tmp_path) as (a, b):
        link = XmppLink(a.component, a.secret, a.host, a.port)

A static route module stands in for DNS. Everything lives in the given folder; leaving the context ends both processes.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedkit.clock import now

SECRET = "a component secret"
START_TIMEOUT = 20.0  # seconds

_CONFIG = """
daemonize = false; pidfile = "{folder}/prosody.pid"; data_path = "{folder}/data"; storage = "memory"
log = {{ {{ levels = {{ min = "info" }}, to = "file", filename = "{folder}/prosody.log" }} }}
run_as_root = true
plugin_paths = {{ "{folder}/modules" }}
modules_enabled = {{ "saslauth", "tls", "s2s_bidi", "smacks", "disco", "ping", "posix", "static_routes" }}
modules_disabled = {{ "c2s" }}
interfaces = {{ "{host}" }}; s2s_ports = {{ 5269 }}
component_interfaces = {{ "{host}" }}; component_ports = {{ 5347 }}
s2s_require_encryption = true; s2s_secure_auth = true
component_conflict_resolve = "kick_old"
network_settings = {{
  nagle = false, min_wait = 0, read_size = 65536, connect_timeout = 5,
}}
gc = {{ mode = "incremental", threshold = 400, speed = 1000 }}
ssl = {{ key = "{folder}/server.key", certificate = "{folder}/server.crt", cafile = "{folder}/ca.crt" }}
static_routes = {{ {routes} }}
VirtualHost "{domain}"
"""
_COMPONENT = """Component "{address}"
    component_secret = "{secret}"
"""
_ROUTES = """
module:set_global()
local service, basic = require "net.resolvers.service", require "net.resolvers.basic"
local routes = module:get_option("static_routes", {})
local original = service.new
function service.new(host, kind, protocol, extra)
    local route = routes[host]
    if not route then return original(host, kind, protocol, extra) end
    local resolver = basic.new(route, 5269, protocol, extra)
    if kind == "xmpps-server" then resolver.targets = {} end -- no direct TLS on the plain port
    return resolver
end
function module.unload() service.new = original end
"""


@dataclass
class Prosody:
    """One running server of one site; `component` is the first component's address."""

    domain: str
    host: str
    folder: Path
    components: list[str]
    routes: dict[str, str] = field(default_factory=dict)
    port: int = 5347
    secret: str = SECRET
    process: subprocess.Popen[bytes] | None = None

    @property
    def component(self) -> str:
        return self.components[0]

    def start(self) -> None:
        """Start, and wait until components can connect."""
        routes = ", ".join(f'["{name}"] = "{host}"' for name, host in self.routes.items())
        config = _CONFIG.format(folder=self.folder, host=self.host, domain=self.domain, routes=routes)
        config += "".join(_COMPONENT.format(address=name, secret=self.secret) for name in self.components)
        (self.folder / "prosody.cfg.lua").write_text(config)
        with (self.folder / "output.log").open("ab") as output:
            self.process = subprocess.Popen(
                ["prosody", "-F", "--config", str(self.folder / "prosody.cfg.lua")],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prosody did not start:\n{self.log()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def pause(self, stopped: bool) -> None:
        """Stop it in its tracks, or let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)

    def log(self) -> str:
        """What it said."""
        paths = (self.folder / "output.log", self.folder / "prosody.log")
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def _listens(self) -> bool:
        for port in (self.port, 5269):
            with socket.socket() as probe:
                if probe.connect_ex((self.host, port)) != 0:
                    return False
        return True


@contextmanager
def prosody_pair(folder: Path, *roles: str) -> Iterator[tuple[Prosody, Prosody]]:
    """Start site-a.test and site-b.test, each with components `fm.SITE` and those of further `roles`."""
    if shutil.which("prosody") is None:
        pytest.skip("Prosody is not installed")
    servers = [_site(folder, f"site-{letter}.test", ["fm", *roles]) for letter in "ab"]
    routes = {name: server.host for server in servers for name in [server.domain, *server.components]}
    try:
        for server in servers:
            server.routes = routes
            server.start()
        yield servers[0], servers[1]
    finally:
        for server in servers:
            server.kill()  # nothing of it is kept


def _site(folder: Path, domain: str, roles: list[str]) -> Prosody:
    place = folder / domain
    (place / "modules").mkdir(parents=True)
    (place / "data").mkdir()
    (place / "modules" / "mod_static_routes.lua").write_text(_ROUTES)
    names = [domain, *(f"{role}.{domain}" for role in roles)]
    _certify(folder, place, names)
    return Prosody(domain, _free_address(), place, names[1:])


def _free_address() -> str:
    """A loopback address on which nobody uses the two ports: parallel test runs do not meet."""
    while True:
        host = f"127.{random.randint(64, 126)}.{random.randint(1, 254)}.1"
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind((host, 5269))
                other.bind((host, 5347))
            except OSError:
                continue
            return host


def _certify(folder: Path, place: Path, names: list[str]) -> None:
    """Write server.key, server.crt and ca.crt; the authority is made once for a folder."""
    authority = folder / "ca.key"
    if not authority.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        authority.write_bytes(_pem(key))
        certificate = _certificate("test authority", key, "test authority", key, None)
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    signer = serialization.load_pem_private_key(authority.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(names[0], key, "test authority", signer, names)
    (place / "server.key").write_bytes(_pem(key))
    (place / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    shutil.copy(folder / "ca.crt", place / "ca.crt")


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    names: list[str] | None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
