"""`fed credentials`: what others gave you, kept at your member; and taking back what your own key signed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.client import Client, segment
from deploy.commands.errors import Refused, UnusableFile
from deploy.commands.output import Format, OutputOption, say, show
from fedkit.errors import InputError

if TYPE_CHECKING:
    from fedkit.policy.model import Credential

COLUMNS = {"id": "id", "statement": "statement", "expires": "expires"}

app = typer.Typer(
    no_args_is_help=True,
    help="""Credentials that others gave you. Your member shows them to a lender that asks for them, and to nobody else.

    fed credentials add acme-customer.cred

    fed credentials revoke friend.cred --key me.pem
""",
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE")]


@app.command()
def add(file: FileArgument, output: OutputOption = Format.TABLE) -> None:
    """Keep the credential in FILE at your member; `fed abac convert` writes the compact form that travels.

    Example: `fed credentials add acme-customer.cred`
    """
    show(Client.of_this_user().post("/credentials", {"text": _compact(file).raw.decode()}), output, COLUMNS)


@app.command("list")
def list_(output: OutputOption = Format.TABLE) -> None:
    """List what you keep.

    Example: `fed credentials list -o json`
    """
    show(Client.of_this_user().get("/credentials")["items"], output, COLUMNS)


@app.command()
def remove(credential_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Keep a credential no longer.

    Example: `fed credentials remove 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`
    """
    Client.of_this_user().delete(f"/credentials/{segment(credential_id)}")
    say(f"Removed {credential_id}.")


@app.command("use-key")
def use_key(file: Annotated[Path, typer.Argument(metavar="FILE", help="Your private key (PEM).")]) -> None:
    """Register a key of your own at your member, in place of the one before; what runs elsewhere in your name ends.

    From then on `fed login URL --user NAME --key FILE` lets your member act for you.

    Example: `fed credentials use-key me.pem`
    """
    from fedkit.identity import challenge
    from fedkit.identity.keys import PrivateKey

    try:
        key = PrivateKey.load(file)
    except OSError as error:
        raise UnusableFile(f"{file} cannot be read: {error.strerror}.") from error
    client = Client.of_this_user()
    user = str(client.get("/me")["user"])
    asked = client.post("/login/challenge", {"user": user})
    told = client.post("/key", {"answer": challenge.answer(key, asked["nonce"], asked["member"], user)})
    say(f"You are {told['principal']} now; log in with `fed login {client.url} --user {user} --key {file}`.")


@app.command()
def revoke(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…")],
    key: Annotated[Path, typer.Option("--key", help="The private key that signed them.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Take back credentials that your key signed: whatever was lent because of them ends, everywhere.

    Example: `fed credentials revoke friend.cred --key me.pem`
    """
    from fedkit.identity.keys import PrivateKey
    from fedkit.policy import revocation

    signer = PrivateKey.load(key)
    taken_back = {}
    for credential in map(_compact, files):
        if credential.issuer != signer.public:
            raise InputError(f"{credential.statement} was signed by {credential.issuer.fedid}, not by this key.")
        taken_back[credential.id] = credential.expires
    client = Client.of_this_user()
    before = _published(client, signer.fedid)
    known = {} if before is None else dict(before.revoked)
    now = datetime.now(UTC)
    serial = max(int(now.timestamp() * 1000), 0 if before is None else before.serial + 1)
    made = revocation.issue(signer, serial, now, known | taken_back)
    answer: dict[str, Any] = client.post("/revocations", {"signed": made.text})
    rows = [{"id": name, "expires": until} for name, until in answer["revoked"].items()]
    show(rows, output, {"id": "revoked", "expires": "would have expired"})


def _published(client: Client, issuer: str) -> Any:
    from fedkit.policy import revocation

    try:
        return revocation.read(client.get(f"/revocations/{segment(issuer)}")["signed"])
    except Refused as refusal:
        if refusal.code != "web.not_found":
            raise
        return None


def _compact(file: Path) -> Credential:
    from fedkit.policy import compact

    try:
        return compact.read(file.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{file} is not a credential in the compact form: {error}.") from error
