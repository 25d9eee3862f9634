"""`docs/protocol.md` is normative, so it must say what the code does."""

from __future__ import annotations

import re
from xml.etree.ElementTree import fromstring

import pytest

from fedkit.errors import FedError
from fedkit.mesh import chunks, envelope, errors, inbox, lane, limits, packs, receiver, stanzas, stream, work
from tests.support import protocol_examples
from tests.support.protocol_examples import DOCUMENT, KEY_A, KEY_B


@pytest.mark.parametrize("name", sorted(protocol_examples.examples()))
def test_examples_are_what_the_code_makes(name: str) -> None:
    assert protocol_examples.written()[name] == protocol_examples.examples()[name]


def test_the_documents_stanzas_verify() -> None:
    written = protocol_examples.written()
    key, request = envelope.open_request(stanzas.payload_text(fromstring(written["request"]), "request"))
    assert key == KEY_A.public
    for name in ("answer", "refusal"):
        key, answer = envelope.open_answer(stanzas.payload_text(fromstring(written[name]), "answer"))
        assert key == KEY_B.public
        assert (answer.jti, answer.n, answer.op) == (request.jti, request.n, request.op)


def all_errors(family: type[FedError]) -> set[type[FedError]]:
    return {family}.union(*(all_errors(child) for child in family.__subclasses__()))


def test_every_code_of_the_mesh_is_in_the_table() -> None:
    table = DOCUMENT.read_text().split("## 12. Error codes")[1].split("## 13.")[0]
    codes = {error.code for error in all_errors(errors.MeshError) if error.__module__ == errors.__name__}
    written = set(re.findall(r"`(mesh\.[a-z_]+)`", table))
    assert codes - {"mesh.failed"} == written


@pytest.mark.parametrize(
    "said",
    [
        f"at most {envelope.TEXT_LIMIT:,} characters",
        f"more than {envelope.INLINE_LIMIT:,} octets",
        f"({envelope.BODY_LIMIT:,} octets)",
        f"at most {envelope.LIFETIME_LIMIT:g} s apart",
        f"at most {chunks.CHUNK:,} octets",
        f"each for {chunks.LIFETIME:g} s after",
        f"at most {chunks.PER_PEER} bodies",
        f"{stream.ELEMENT_LIMIT}, {stream.DEPTH_LIMIT}",
        f"{receiver.STRANGER_RATE:g} a second, {receiver.STRANGER_BURST:g} at once",
        f"counts as {receiver.FORGERY_COST:g} requests",
        f"| {receiver.RUNNING} |",
        f"{limits.SEEN_QUERIES:,}",
        f"clock + {work.SKEW:g} s",
        f"up to {lane.WINDOW} stanzas at a time",
        f"up to {packs.PACK} commands",
        f"{inbox.RETRY_WINDOW / 86400:g} days and {inbox.CLOCK_SLACK / 60:g} minutes",
        f"kept for {inbox.REFUSAL_KEPT / 60:g} minutes",
    ],
)
def test_limits_are_those_of_the_code(said: str) -> None:
    assert said in DOCUMENT.read_text()


def test_every_operation_of_the_schemas_is_described() -> None:
    document = DOCUMENT.read_text()
    for path in (DOCUMENT.parents[1] / "fedkit" / "protocol").glob("*.py"):
        for operation in re.findall(r"^\| `([a-z._]+)`", path.read_text(), re.MULTILINE):
            assert f"`{operation}`" in document, operation
