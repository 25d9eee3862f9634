"""The scenarios of libabac's own tests, as folders of identity and credential files in any form.

    python -m tests.support.abac_scenarios DIR       writes the fixed files that are kept in tests/unit/policy/files

Principals sign with RSA keys of 2048 bits, as creddy's do, so that every form can carry them.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fedkit.identity.keys import PrivateKey
from fedkit.policy.formats import Form, write
from fedkit.policy.formats.identities import self_signed
from fedkit.policy.model import Statement

BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
EXPIRES = datetime.datetime(2126, 1, 1, tzinfo=datetime.UTC)
SUFFIX = {Form.COMPACT: ".cred", Form.X509: "_attr.der", Form.GENI_1_0: "_attr.xml", Form.GENI_1_1: "_attr.xml"}
MIXED = tuple(Form)


@dataclass(frozen=True)
class Query:
    """Whether a role (or principal), by name, has a role, and how many credentials show it."""

    role: str
    principal: str
    credentials: int = 0

    @property
    def proved(self) -> bool:
        """Whether it is to be proved."""
        return self.credentials > 0


@dataclass(frozen=True)
class Scenario:
    """Statements with names for principals, and what follows from them."""

    statements: Sequence[str]
    queries: Sequence[Query]

    @property
    def names(self) -> list[str]:
        """Everybody who occurs."""
        texts = [*self.statements, *(f"{query.role} <- {query.principal}" for query in self.queries)]
        words = (part.strip().split(".")[0] for text in texts for side in text.split("<-") for part in side.split("&"))
        return list(dict.fromkeys(words))


SCENARIOS: Mapping[str, Scenario] = {
    "acme_rockets": Scenario(
        ["Acme.buy_rockets <- Acme.preferred_customer", "Acme.preferred_customer <- Coyote"],
        [
            Query("Acme.preferred_customer", "Coyote", 1),
            Query("Acme.buy_rockets", "Coyote", 2),
            Query("Acme.buy_rockets", "Acme.preferred_customer", 1),
            Query("Coyote.friend", "Acme"),
            Query("Acme.friend", "Acme"),
        ],
    ),
    "acme_rockets_intersection": Scenario(
        [
            "Acme.buy_rockets <- Acme.preferred_customer & WarnerBros.character",
            "Acme.preferred_customer <- Coyote",
            "Acme.preferred_customer <- Batman",
            "WarnerBros.character <- Coyote",
        ],
        [
            Query("Acme.buy_rockets", "Coyote", 3),
            Query("Acme.buy_rockets", "Batman"),
            Query("Acme.bad_buy_rockets", "Coyote"),
        ],
    ),
    "experiment_create": Scenario(
        [
            "Acme.experiment_create <- Acme.partner.experiment_create",
            "Acme.partner <- Globotron",
            "Globotron.experiment_create <- Globotron.admin.power_user",
            "Globotron.admin <- Alice",
            "Alice.power_user <- Bob",
        ],
        [
            Query("Globotron.admin", "Alice", 1),
            Query("Globotron.admin", "Bob"),
            Query("Acme.experiment_create", "Bob", 5),
        ],
    ),
    "ice_cream": Scenario(
        ["IceCream.delicious <- Chocolate"],
        [Query("IceCream.delicious", "Chocolate", 1), Query("Chocolate.delicious", "IceCream")],
    ),
    "basic_attribute": Scenario(
        [
            "SuperK.park <- SuperK.employee",
            "SuperK.employee <- Jack",
            "SuperK.employee <- Bob",
            "SuperK.employee <- Mary",
        ],
        [Query("SuperK.park", "Jack", 2), Query("SuperK.employee", "Mary", 1), Query("SuperK.park", "SuperK")],
    ),
}


@cache
def key_of(name: str) -> PrivateKey:
    """Return the key that `name` has in this process."""
    return PrivateKey(rsa.generate_private_key(65537, 2048))


def resolve(text: str) -> str:
    """Put fedids for the names in a statement or role."""
    sides = [[_resolve_part(part.strip()) for part in side.split("&")] for side in text.split("<-")]
    return " <- ".join(" & ".join(parts) for parts in sides)


def write_identity(name: str, folder: Path, private: bool = True) -> None:
    """Write `<name>_ID.pem` and `<name>_private.pem` as creddy does."""
    certificate = self_signed(key_of(name), name, BEGIN)
    (folder / f"{name}_ID.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    if private and not (folder / f"{name}_private.pem").exists():
        key_of(name).save(folder / f"{name}_private.pem")


def lay_out(scenario: Scenario, folder: Path, forms: Iterable[Form]) -> None:
    """Write everybody's identity and each statement as a credential, in the forms given, in turn."""
    for name in scenario.names:
        write_identity(name, folder)
    for statement, form in zip(scenario.statements, cycle(forms), strict=False):
        issuer = statement.split(".")[0]
        data = write(
            form,
            key_of(issuer),
            Statement.parse(resolve(statement)),
            EXPIRES,
            certificate=self_signed(key_of(issuer), issuer, BEGIN),
            names={key_of(name).fedid: name for name in scenario.names},
        )
        stem = statement.replace(" <- ", "__").replace(" & ", "_and_").replace(".", "_")
        (folder / f"{stem}{SUFFIX[form]}").write_bytes(data)


def _resolve_part(part: str) -> str:
    name, dot, roles = part.partition(".")
    return f"{key_of(name).fedid}{dot}{roles}"


def main(folder: Path) -> None:
    """Write one scenario in a mixture of all forms; without private keys, as those belong in no repository."""
    for name in ("acme_rockets_intersection", "experiment_create"):
        place = folder / name
        place.mkdir(parents=True)
        lay_out(SCENARIOS[name], place, MIXED)
        for file in place.glob("*_private.pem"):
            file.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
