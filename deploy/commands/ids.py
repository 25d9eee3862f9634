"""`fed id`: keys and the fedids that name them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.errors import UnusableFile
from deploy.commands.output import Format, OutputOption, show

if TYPE_CHECKING:
    from fedkit.identity.keys import PrivateKey, PublicKey  # cryptography is slow to load; help does not need it

_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
COLUMNS = {"fedid": "fedid", "key": "key", "sha256": "sha256", "file": "file"}

app = typer.Typer(
    no_args_is_help=True,
    help="""Keys, and the fedids that name them.

    fed id create site-a.pem

    fed id create --cn Acme --key rsa ids

    fed id fingerprint site-b.crt
""",
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE")]


@app.command()
def create(
    file: FileArgument,
    key: Annotated[str, typer.Option("--key", help="ed25519, p256 or rsa.")] = "ed25519",
    cn: Annotated[str | None, typer.Option("--cn", help="Also make a self-signed certificate of this name.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a key pair and write it to FILE, readable by you alone; never overwrite.

    Example: `fed id create site-a.pem`

    With --cn, FILE is a folder and gets what creddy writes there: CN_ID.pem, a certificate for 1080 days, and CN_private.pem.

    Example: `fed id create --cn Acme --key rsa ids`
    """
    from fedkit.identity.keys import PrivateKey

    made = PrivateKey.generate(key)
    if cn is not None:
        file = _creddy_pair(made, cn, file)
    try:
        made.save(file)
    except OSError as error:
        raise UnusableFile(f"{file} cannot be written: {error.strerror}.") from error
    _show(made.public, file, output)


def _creddy_pair(key: PrivateKey, cn: str, folder: Path) -> Path:
    """Write the certificate and return where the private key belongs."""
    from datetime import UTC, datetime

    from cryptography.hazmat.primitives.serialization import Encoding

    from deploy.commands.abac_files import write_new
    from fedkit.policy.formats.identities import self_signed

    if not _FILE_NAME.match(cn):
        raise UnusableFile(
            f"--cn becomes part of a file's name: letters, digits, _, - and no others; {cn!r} has others."
        )
    private = folder / f"{cn}_private.pem"
    if private.exists():
        raise UnusableFile(f"{private} exists.")
    certificate = self_signed(key, cn, datetime.now(UTC))
    write_new(folder / f"{cn}_ID.pem", certificate.public_bytes(Encoding.PEM), 0o644)
    return private


@app.command("show")
def show_(file: FileArgument, output: OutputOption = Format.TABLE) -> None:
    """Show what is in FILE: a private key, a public key or a certificate, in PEM or DER.

    Example: `fed id show site-a.pem`
    """
    _show(_read(file), file, output)


@app.command()
def fingerprint(file: FileArgument) -> None:
    """Print the fedid of a certificate or key, alone on a line.

    Example: `fed id fingerprint site-b.crt`
    """
    print(_read(file).fedid)


def _read(file: Path) -> PublicKey:
    from fedkit.identity.keys import PrivateKey, PublicKey

    try:
        if b"PRIVATE KEY-----" in file.read_bytes():
            return PrivateKey.load(file).public
        return PublicKey.from_file(file)
    except OSError as error:
        raise UnusableFile(f"{file} cannot be read: {error.strerror}.") from error


def _show(public: PublicKey, file: Path, output: Format) -> None:
    kind = {"EdDSA": "ed25519", "ES256": "p256", "PS256": "rsa"}[public.algorithm]
    data = {"fedid": public.fedid, "key": kind, "sha256": public.fingerprint, "file": str(file)}
    show(data, output, COLUMNS)
