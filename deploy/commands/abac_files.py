"""What `fed abac` reads from files and writes to them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deploy.commands.errors import UnusableFile
from deploy.commands.output import say
from fedkit.identity.keys import PrivateKey, UnusableKey, is_fedid
from fedkit.policy import rendering
from fedkit.policy.errors import BadCredential, Expired, NotYetValid, UnusableIdentity
from fedkit.policy.formats import Form, check_term, read, write
from fedkit.policy.formats.folder import Folder, read_file, read_folder
from fedkit.policy.formats.identities import Identities, Identity, read_identity
from fedkit.policy.model import Credential, Entity, Statement, UnusableStatement
from fedkit.policy.proof import Proof, Refusal

_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_UNITS["y"] = timedelta(days=365)
_PERIOD = re.compile(r"(\d{1,9})([smhdy])\Z")
_WORD = re.compile(r"[^\s.&]+")


def identities_in(names: Path | None) -> Identities:
    """Read the identity files of a folder, if one is named; credentials in it are left alone."""
    known = Identities()
    if names is None:
        return known
    for file in _listing(names):
        try:
            known.add(read_identity(read_file(file)))
        except (BadCredential, UnusableIdentity, UnusableKey):  # not an identity; who is missed will be told by name
            continue
    return known


def read_credentials(file: Path, known: Identities, allow_sha1: bool) -> list[Credential]:
    """Read one file's credentials; raise `UnusableFile` where there is none to read, and what `formats.read` raises."""
    if not file.is_file():
        raise UnusableFile(f"{file} is no file.")
    return read(read_file(file), identities=known, allow_sha1=allow_sha1)


def open_folder(path: Path, allow_sha1: bool) -> Folder:
    """Read a folder and tell what in it cannot be used or does not hold now; raise `UnusableFile` if nothing can be used."""
    try:
        folder = read_folder(path, allow_sha1=allow_sha1)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}.") from error
    for unusable in folder.unusable:
        say(f"{unusable.file}: {unusable.error.message} [{unusable.error.code}]")
    for entry in folder.entries:
        try:
            check_term(entry.credential, datetime.now(UTC))
        except (Expired, NotYetValid) as error:
            say(f"{entry.file}: {error.message} [{error.code}]")
    if not folder.entries and folder.unusable:
        raise UnusableFile(f"{path} holds no credential that can be used.")
    return folder


def load_key(file: Path) -> PrivateKey:
    """Read a private key; raise `UnusableFile` or `UnusableKey`."""
    try:
        return PrivateKey.load(file)
    except OSError as error:
        raise UnusableFile(f"{file} cannot be read: {error.strerror}.") from error


def period(text: str) -> timedelta:
    """Read creddy's validity: a number and s, m, h, d or y."""
    match = _PERIOD.match(text)
    if match is None or int(match[1]) == 0:
        raise UnusableStatement(
            f"A validity is a number above 0 and one of s, m, h, d, y, as 12h; {text[:40]!r} is not."
        )
    try:
        span = int(match[1]) * _UNITS[match[2]]
        datetime.now(UTC) + span
    except OverflowError:
        raise UnusableStatement(f"A validity ends before the year 10000; {text!r} does not.") from None
    return span


def resolve(statement: str, known: Identities) -> str:
    """Put fedids for the names of principals in a statement; raise `UnusableStatement` for one that two principals share."""
    owners: dict[str, list[str]] = {}
    for fedid, name in known.names.items():
        owners.setdefault(name, []).append(fedid)

    def principal(match: re.Match[str]) -> str:
        found = (
            [] if is_fedid(match[0]) else owners.get(match[0], [])
        )  # a fedid is nobody's name, whatever a certificate says
        if len(found) > 1:
            raise UnusableStatement(f"{match[0]} is the name of {' and of '.join(found)}; write the fedid.")
        return found[0] if found else match[0]

    head, arrow, tail = statement.partition("<-")
    sides = [[_WORD.sub(principal, part, count=1) for part in side.split("&")] for side in (head, tail)]
    return arrow.join("&".join(parts) for parts in sides) if arrow else statement


def write_credential(
    form: str,
    key: PrivateKey,
    statement: Statement,
    term: tuple[datetime | None, datetime],
    known: Identities,
    issuer: Path | None,
    out: Path | None,
) -> None:
    """Sign a credential and write it to `out`, never over a file that exists, or to standard output."""
    identity = None if issuer is None else _issuer(issuer, key)
    certificate = None if identity is None else identity.certificate
    begin, expires = term
    data = write(Form(form), key, statement, expires, begin, certificate=certificate, names=known.names)
    if out is None:
        sys.stdout.buffer.write(data if data.endswith(b"\n") or form == Form.X509 else data + b"\n")
        sys.stdout.buffer.flush()
        return
    write_new(out, data, 0o644)
    say(f"{out}: {rendering.name_all(str(statement), known.names)}")


def write_new(file: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet; raise `UnusableFile`."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
    except OSError as error:
        raise UnusableFile(f"{file} cannot be written: {error.strerror}.") from error


def row(file: Path, credential: Credential, known: Identities) -> dict[str, Any]:
    """Describe a credential for a table or a program."""
    begin = credential.not_before
    return {
        "file": str(file),
        "form": credential.encoding,
        "id": credential.id,
        "issuer": credential.issuer.fedid,
        "issuer_name": known.names.get(credential.issuer.fedid),
        "statement": str(credential.statement),
        "named": rendering.name_all(str(credential.statement), known.names),
        "not_before": None if begin is None else begin.isoformat(),
        "expires": credential.expires.isoformat(),
        "holds": credential.holds_at(datetime.now(UTC)),
    }


def show_answer(answer: Proof | Refusal, folder: Folder, output: str) -> None:
    """Print a proof, or what is missing for one, as text, JSON or a Mermaid flow chart."""
    names = folder.identities.names
    proof, missing = (answer.as_json(), []) if isinstance(answer, Proof) else ([], answer.as_json())
    if isinstance(answer, Refusal) and answer.exhausted:
        say("The search ended at its budget; there may be a proof all the same.")
    if output == "json":
        told = {
            "proved": answer.proved,
            "role": str(answer.role),
            "principal": str(answer.subject),
            "proof": proof,
            "missing": missing,
            "exhausted": isinstance(answer, Refusal) and answer.exhausted,
            "names": {fedid: name for fedid, name in names.items() if fedid in _mentioned(answer)},
            "unusable": [{"file": str(unusable.file), **unusable.error.to_dict()} for unusable in folder.unusable],
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
    elif output == "mermaid":
        print(rendering.proof_mermaid(proof, names) if answer.proved else rendering.missing_mermaid(missing, names))
    else:
        goal = rendering.name_all(f"{answer.subject} has {answer.role}", names)
        print(f"{'Proved' if answer.proved else 'Not proved'}: {goal}")
        print(rendering.proof_text(proof, names) if answer.proved else rendering.missing_text(missing, names))


def _mentioned(answer: Proof | Refusal) -> set[str]:
    statements = (
        [step.credential.statement for step in answer.steps]
        if isinstance(answer, Proof)
        else [statement for statements in answer.missing for statement in statements]
    )
    fedids = {fedid for statement in statements for fedid in statement.principals()}
    subject = answer.subject.fedid if isinstance(answer.subject, Entity) else answer.subject.principal
    return fedids | {answer.role.principal, subject}


def _issuer(file: Path, key: PrivateKey) -> Identity:
    identity = read_identity(read_file(file))
    if identity.key.spki != key.public.spki:
        raise UnusableFile(f"The private key is {key.fedid}'s, {file} is {identity.fedid}'s.")
    return identity


def _listing(path: Path) -> Sequence[Path]:
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}.") from error
