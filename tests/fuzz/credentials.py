"""Fuzz targets: every parser of credentials and identities.

A target takes octets and fails in two ways: by any exception that is no `FedError`, and by accepting something that nobody
signed. The octets start from genuine credentials, whose ids are known; a credential with another id is a forgery that was believed. Parsers
that see only what was signed (by a hostile key) have targets of their own behind the signature.

    python -m tests.fuzz.credentials xml 600          10 minutes of one target; all targets without a name
    python -m tests.fuzz.guided xml -max_total_time=600        guided by coverage, where atheris is installed
"""

from __future__ import annotations

import base64
import contextlib
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from lxml import etree

from fedkit.errors import FedError
from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from fedkit.policy.formats import Form, geni, read, write
from fedkit.policy.formats.identities import Identities, Identity, holds_only_private_key, read_identity, self_signed
from fedkit.policy.formats.xml_signature import Envelope
from fedkit.policy.model import Statement
from tests.fuzz.mutation import mutate
from tests.support.abac_scenarios import BEGIN, EXPIRES

# Always the same key, so that what is found once can be repeated. It protects nothing.
KEY = PrivateKey(
    load_pem_private_key(
        b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjp+CuS9F5MUx/rBW
SoYm5qCkA0rSPu2q3dN9joF7flyhRANCAAS6WYS7w3qkE6qf4bqEXxP51+pFk4Un
+iJ7Yqgqn/OhxWijTZAMg5uq6Env3T48BPMWaR5Qk2qhyEf8NE2Se9gk
-----END PRIVATE KEY-----
""",
        password=None,
    )  # type: ignore[arg-type]
)
CERTIFICATE = self_signed(KEY, "Acme", BEGIN)
STATEMENT = Statement.parse(f"{KEY.fedid}.a <- {KEY.fedid}.b.c & {'0' * 40}.d & {'1' * 40}")
_KEPT = 0.01  # part of the mutants that is mutated further
OLD_FILES = Path(__file__).parent.parent / "unit" / "policy" / "files"


class Forgery(AssertionError):
    """Something was believed that nobody signed."""


def genuine(data: bytes) -> None:
    """Read a credential in any form: nothing but what was signed is accepted."""
    issuers = _issuers()
    for credential in read(data, identities=Identities(issuers.values()), allow_sha1=True):
        if credential.issuer.spki in issuers and credential.id not in _genuine_ids():
            raise Forgery(str(credential.statement))


def signed_payload(data: bytes) -> None:
    """What a hostile issuer signs in our own form."""
    compact.read(jws.sign(KEY, compact.TYPE, data))


def signed_element(data: bytes) -> None:
    """What a hostile issuer signs in XML."""
    try:
        element = etree.fromstring(data, etree.XMLParser(resolve_entities=False))
    except (etree.XMLSyntaxError, ValueError):
        return
    geni.interpret(Envelope(element, KEY.public, CERTIFICATE), data, Identities())


def identity(data: bytes) -> None:
    """An identity file."""
    if not holds_only_private_key(data):
        Identities().add(read_identity(data))


def statement(data: bytes) -> None:
    """A statement, whose text says the same when read again."""
    read_once = Statement.parse(data.decode("utf-8", "replace"))
    if Statement.parse(str(read_once)) != read_once:
        raise Forgery(str(read_once))


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "compact": genuine,
    "x509": genuine,
    "xml": genuine,
    "signed-payload": signed_payload,
    "signed-element": signed_element,
    "identity": identity,
    "statement": statement,
}


@cache
def seeds(target: str) -> Sequence[bytes]:
    """Well-formed input to start from."""
    wanted = {
        "compact": ([Form.COMPACT], "*.cred"),
        "x509": ([Form.X509], "*.der"),
        "xml": ([Form.GENI_1_0, Form.GENI_1_1], "*.xml"),
    }
    if target in wanted:
        forms, files = wanted[target]
        return [*(_write(form) for form in forms), *(file.read_bytes() for file in sorted(OLD_FILES.rglob(files)))]
    public = KEY.public.key
    return {
        "signed-payload": [b'{"statement": "%s", "not_before": 0, "expires": 4000000000}' % str(STATEMENT).encode()],
        "signed-element": [
            etree.tostring(_credential(Form.GENI_1_0)),
            etree.tostring(_credential(Form.GENI_1_1)),
            _privilege(),
        ],
        "identity": [
            CERTIFICATE.public_bytes(Encoding.PEM),
            CERTIFICATE.public_bytes(Encoding.DER),
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            (OLD_FILES / "experiment_create" / "Acme_ID.pem").read_bytes(),
        ],
        "statement": [str(STATEMENT).encode()],
    }[target]


def attempt(target: str, data: bytes) -> None:
    """Give `data` to a target; only what the target may not do comes out."""
    with contextlib.suppress(FedError):
        TARGETS[target](data)


def run(target: str, rng: random.Random, executions: int | None = None, seconds: float | None = None) -> int:
    """Mutate the seeds, and some of what came of them; return how many attempts were made. What fails is kept in a file."""
    mutants: deque[bytes] = deque(maxlen=64)
    end = None if seconds is None else time.monotonic() + seconds
    done = 0
    while (executions is None or done < executions) and (end is None or time.monotonic() < end):
        corpus = [*seeds(target), *mutants]
        data = mutate(rng.choice(corpus), rng, corpus)
        try:
            attempt(target, data)
        except BaseException as error:
            with tempfile.NamedTemporaryFile(prefix=f"crash-{target}-", delete=False) as file:
                file.write(data)
            error.add_note(f"The input is kept in {file.name}.")
            raise
        done += 1
        if rng.random() < _KEPT:
            mutants.append(data)
    return done


def _write(form: Form) -> bytes:
    return write(form, KEY, STATEMENT, EXPIRES, certificate=CERTIFICATE, names={KEY.fedid: "Acme"})


@cache
def _issuers() -> Mapping[bytes, Identity]:
    """Those who have signed seeds, by their keys."""
    old = [read_identity(file.read_bytes()) for file in OLD_FILES.rglob("*_ID.pem")]
    return {identity.key.spki: identity for identity in [Identity(KEY.public), *old]}


@cache
def _genuine_ids() -> frozenset[str]:
    known = Identities(_issuers().values())
    texts = [text for target in ("compact", "x509", "xml") for text in seeds(target)]
    return frozenset(credential.id for text in texts for credential in read(text, identities=known))


def _credential(form: Form) -> etree._Element:
    return etree.fromstring(_write(form))[0]


def _privilege() -> bytes:
    gid = base64.b64encode(CERTIFICATE.public_bytes(Encoding.DER))
    granted = b"<privilege><name>refresh</name><can_delegate>true</can_delegate></privilege>"
    return (
        b'<credential xml:id="ref0"><type>privilege</type><owner_gid>%s</owner_gid><target_gid>%s</target_gid>'
        b"<expires>2030-07-17T00:00:00Z</expires><privileges>%s</privileges></credential>" % (gid, gid, granted)
    )


def main(arguments: Sequence[str]) -> None:
    """Run one target, or each, for some seconds; print how often."""
    names = [arguments[0]] if arguments else list(TARGETS)
    seconds = float(arguments[1]) if len(arguments) > 1 else 60
    for name in names:
        print(name, run(name, random.Random(), seconds=seconds), "executions", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
