"""`fed id`: keys and the fedids that name them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.errors import UnusableFile
from deploy.commands.output import Format, OutputOption, show

if TYPE_CHECKING:
    from fedkit.identity.keys import PublicKey  # cryptography is slow to load; help does not need it

COLUMNS = {"fedid": "fedid", "key": "key", "sha256": "sha256", "file": "file"}

app = typer.Typer(
    no_args_is_help=True,
    help="""Keys, and the fedids that name them.

    fed id create site-a.pem

    fed id fingerprint site-b.crt
""",
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE")]


@app.command()
def create(
    file: FileArgument,
    key: Annotated[str, typer.Option("--key", help="ed25519, p256 or rsa.")] = "ed25519",
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a key pair and write it to FILE, readable by you alone; never overwrite.

    Example: `fed id create site-a.pem`
    """
    from fedkit.identity.keys import PrivateKey

    made = PrivateKey.generate(key)
    try:
        made.save(file)
    except OSError as error:
        raise UnusableFile(f"{file} cannot be written: {error.strerror}.") from error
    _show(made.public, file, output)


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
