"""`fed abac`: credentials and proofs, on files. It needs no member and no network."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.errors import UnusableFile
from deploy.commands.output import Format, OutputOption, say, show
from fedkit.errors import Exit, FedError

COLUMNS = {
    "file": "file",
    "form": "form",
    "statement": "named",
    "from": "not_before",
    "until": "expires",
    "holds": "holds",
}

app = typer.Typer(
    no_args_is_help=True,
    help="""Credentials and proofs (ABAC, RT0), on files.

    fed id create --cn Acme --key rsa ids

    fed abac sign "Acme.buy_rockets <- Acme.preferred_customer" --names ids --key ids/Acme_private.pem --out rockets.cred

    fed abac prove --credentials ids 5a151e1744670b010bfb468105e1dae4f21d9ae6.buy_rockets 0d103a09f360b9d59ba7fb0e747cc7da7afcfaa3

Where creddy was used: generate is `fed id create --cn`, keyid is `fed id fingerprint`, attribute is `sign`, verify is `verify`,
roles and display are `show`.
""",
)


class Form(StrEnum):
    """The forms of credentials that can be written."""

    COMPACT = "compact"
    X509 = "x509"
    GENI_1_0 = "geni-1.0"
    GENI_1_1 = "geni-1.1"


class Drawing(StrEnum):
    """How a proof is shown."""

    TEXT = "text"
    JSON = "json"
    MERMAID = "mermaid"


FormOption = Annotated[Form, typer.Option("--form", help="Form to write.", show_default=True)]
KeyOption = Annotated[Path, typer.Option("--key", help="The issuer's private key, PEM.", metavar="FILE")]
IssuerOption = Annotated[
    Path | None,
    typer.Option("--issuer", help="The issuer's certificate, to be carried along in XML.", metavar="FILE"),
]
NamesOption = Annotated[
    Path | None, typer.Option("--names", help="A folder of identity files (CN_ID.pem).", metavar="DIR")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="File to write; standard output otherwise.")]
Sha1Option = Annotated[bool, typer.Option("--allow-sha1", help="Accept the SHA-1 signatures of old files.")]


@app.command()
def sign(
    statement: Annotated[str, typer.Argument(metavar="STATEMENT")],
    key: KeyOption,
    issuer: IssuerOption = None,
    names: NamesOption = None,
    form: FormOption = Form.COMPACT,
    valid: Annotated[str, typer.Option("--valid", help="How long: a number and s, m, h, d or y.")] = "365d",
    out: OutOption = None,
) -> None:
    """Sign a credential: HEAD <- TAIL, where a tail of several parts is joined by &.

    Example: `fed abac sign "Acme.buy_rockets <- Acme.customer & Bank.solvent" --names ids --key ids/Acme_private.pem`

    Principals are fedids or, with --names, common names out of that folder.
    """
    from deploy.commands.abac_files import identities_in, load_key, period, resolve, write_credential
    from fedkit.policy.model import Statement

    known = identities_in(names)
    told = Statement.parse(resolve(statement, known))
    expires = datetime.now(UTC) + period(valid)
    write_credential(form, load_key(key), told, (None, expires), known, issuer, out)


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    names: NamesOption = None,
    allow_sha1: Sha1Option = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Check credentials: signed by their issuer, and valid now. Exit status 0 if all are, 1 if any is not.

    Example: `fed abac verify rockets.cred`

    An X.509 attribute certificate does not carry its issuer's key; give its identity file with --names.
    """
    from deploy.commands.abac_files import identities_in, read_credentials, row
    from fedkit.policy.formats import check_term

    known, rows, failed = identities_in(names), [], False
    for file in files:
        try:
            credentials = read_credentials(file, known, allow_sha1)
            for credential in credentials:
                check_term(credential, datetime.now(UTC))
        except UnusableFile:
            raise
        except FedError as error:
            say(f"{file}: {error.message} [{error.code}]")
            failed = True
        else:
            rows += [row(file, credential, known) for credential in credentials]
    if rows:
        show(rows, output, COLUMNS)
    if failed:
        raise typer.Exit(Exit.REFUSED)


@app.command("show")
def show_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    names: NamesOption = None,
    allow_sha1: Sha1Option = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what credentials say: issuer, statement, term; also those that have expired.

    Example: `fed abac show Acme_attr.xml -o json`
    """
    from deploy.commands.abac_files import identities_in, read_credentials, row

    known = identities_in(names)
    read = [(file, credential) for file in files for credential in read_credentials(file, known, allow_sha1)]
    show([row(file, credential, known) for file, credential in read], output, COLUMNS)


@app.command()
def prove(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="FEDID.ROLE")],
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="A fedid, or a role for all who have it.")],
    credentials: Annotated[
        Path, typer.Option("--credentials", help="Folder of credentials and identities.", metavar="DIR")
    ],
    allow_sha1: Sha1Option = False,
    output: Annotated[Drawing, typer.Option("-o", "--output", help="How to show the proof.")] = Drawing.TEXT,
) -> None:
    """Prove from credentials that PRINCIPAL has ROLE, or say what is missing. Exit status 0 proved, 1 not proved, 2 unusable input.

    Example: `fed abac prove --credentials DIR 5a151e1744670b010bfb468105e1dae4f21d9ae6.delicious 0d103a09f360b9d59ba7fb0e747cc7da7afcfaa3`

    DIR may mix all forms; files in it that cannot be used are told and left out.
    """
    from deploy.commands.abac_files import open_folder, show_answer
    from fedkit.policy.model import Entity, Role, UnusableStatement, parse_part
    from fedkit.policy.prover import Prover

    goal, subject = Role.parse(role), parse_part(principal)
    if not isinstance(subject, Entity | Role):
        raise UnusableStatement("The principal is a fedid, or a role written <fedid>.<role>.")
    folder = open_folder(credentials, allow_sha1)
    answer = Prover(folder.credentials).prove(goal, subject, datetime.now(UTC))
    show_answer(answer, folder, output.value)
    if not answer.proved:
        raise typer.Exit(Exit.REFUSED)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    form: Annotated[Form, typer.Option("--to", help="Form to write.")],
    key: KeyOption,
    issuer: IssuerOption = None,
    names: NamesOption = None,
    allow_sha1: Sha1Option = False,
    out: OutOption = None,
) -> None:
    """Write a credential in another form. Its issuer must sign it again, so the issuer's key is needed.

    Example: `fed abac convert Acme_attr.xml --to compact --key Acme_private.pem --out acme.cred`
    """
    from deploy.commands.abac_files import identities_in, load_key, read_credentials, write_credential
    from fedkit.policy.formats import check_term

    known, private = identities_in(names), load_key(key)
    found = read_credentials(file, known, allow_sha1)
    if len(found) != 1:
        raise UnusableFile(f"{file} says {len(found)} things; sign them one by one, as `fed abac show` tells them.")
    credential, begin = found[0], found[0].not_before
    if form in {Form.GENI_1_0, Form.GENI_1_1}:
        # XML cannot say when a credential begins; once it has begun, that makes no difference any more.
        check_term(credential, datetime.now(UTC))
        begin = None
    write_credential(form, private, credential.statement, (begin, credential.expires), known, issuer, out)
