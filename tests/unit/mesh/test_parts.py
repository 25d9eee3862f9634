"""The mesh's parts one by one: what a stanza may be, what a lane starts, what the bounds hold."""

from __future__ import annotations

import hashlib
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.errors import FedError
from fedkit.mesh import stanzas
from fedkit.mesh.api import Peer
from fedkit.mesh.chunks import CHUNK, IN_ALL, PER_PEER, Assemblies, chunk
from fedkit.mesh.envelope import NAMESPACE
from fedkit.mesh.errors import BadBody, Busy, Incomplete, Malformed, RateLimited, Replayed
from fedkit.mesh.lane import BRISK, LOADED, LOADED_OCTETS, Lane
from fedkit.mesh.limits import SEEN_QUERIES, Buckets, SeenQueries
from fedkit.mesh.outbox import Entry
from fedkit.mesh.packs import PACK
from fedkit.mesh.stanzas import Reply

PEER = Peer("0" * 40, "fm.b.test")


class Time:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entry(number: int, ordered: bool = True, body: str = "{}") -> Entry:
    return Entry(f"jti-{number}", PEER, "test.say", body, 0.0, 1e9, ordered, id=number)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<request xmlns='urn:fedmesh:1'>a</request><request xmlns='urn:fedmesh:1'>b</request>",
        "<request xmlns='urn:fedmesh:1'><x/></request>",
        "<request xmlns='urn:fedmesh:1' a='b'>a</request>",
        "<request xmlns='urn:fedmesh:2'>a</request>",
        "<answer xmlns='urn:fedmesh:1'>a</answer>",
    ],
)
def test_an_iq_of_ours_holds_one_request_and_nothing_else(content: str) -> None:
    with pytest.raises(Malformed):
        stanzas.payload_text(fromstring(f"<iq>{content}</iq>"), "request")


@given(st.text(), st.text(alphabet="abc.-'\"<>&\x0b\x00é", min_size=1))
def test_what_we_write_is_xml_whatever_the_text(message: str, address: str) -> None:
    reply = Reply("id'1", stanzas._FORBIDDEN.sub("", address), "fm.a.test")
    parsed = fromstring(stanzas.iq_error(reply, FedError(message)))
    assert parsed.get("id") == "id'1"
    fault = parsed.find(f".//{{{NAMESPACE}}}fault")
    assert fault is not None
    assert fault.get("code") == "internal"


def test_an_unsigned_error_is_read_back() -> None:
    reply = Reply("1", "fm.a.test", "fm.b.test")
    text = stanzas.iq_error(reply, RateLimited("Slowly.", 0.25)).replace("<iq ", f"<iq xmlns='{stanzas.COMPONENT}' ")
    bounced = stanzas.bounced(fromstring(text))
    assert (bounced.condition, bounced.fault, bounced.retry_after) == ("resource-constraint", "mesh.rate_limited", 0.25)


@pytest.mark.parametrize("hint", ["", "soon", "nan", "inf", "-1", "1e400"])
def test_a_senseless_hint_is_no_hint(hint: str) -> None:
    text = f"<iq xmlns='{stanzas.COMPONENT}'><error><fault xmlns='{NAMESPACE}' code='x' retry-after='{hint}'/></error></iq>"
    assert stanzas.bounced(fromstring(text)).retry_after == 0.0


def test_a_reply_needs_an_id_and_addresses() -> None:
    assert stanzas.reply_to(Element("iq", {"from": "a", "to": "b"})) is None
    assert stanzas.reply_to(Element("iq", {"id": "x" * 300, "from": "a", "to": "b"})) is None
    assert stanzas.reply_to(Element("iq", {"id": "1", "from": "a", "to": "b"})) == Reply("1", "a", "b")


def take(lane: Lane, patient: bool = True) -> list[Entry]:
    return lane.take(0, lambda _entry: patient)


def test_commands_that_wait_share_a_stanza_in_their_order() -> None:
    lane = Lane(PEER)
    for number in (1, 2, 3):
        lane.offer(entry(number))
    batch = take(lane)
    assert [each.id for each in batch] == [1, 2, 3]
    assert lane.predecessors(batch) == [None, "jti-1", "jti-2"]
    lane.offer(entry(4))
    assert lane.predecessors(take(lane)) == ["jti-3"]
    batch[2].displaced = True
    assert lane.predecessors(list(lane.flying.values())) == [None, "jti-1", None, "jti-2"]


def test_what_is_large_urgent_or_troublesome_goes_alone() -> None:
    lane = Lane(PEER)
    lane.offer(entry(1))
    lane.offer(entry(2, body="x" * 40_000))
    lane.offer(entry(3))
    lane.offer(entry(4))
    lane.waiting["jti-4"].displaced = True
    assert [[each.id for each in take(lane)] for _ in range(4)] == [[1], [2], [3], [4]]
    lane.offer(entry(5))
    lane.offer(entry(6))
    for _ in range(2):
        lane.landed([lane.flying["jti-1"]] if "jti-1" in lane.flying else [lane.flying["jti-2"]])
    assert [each.id for each in take(lane, patient=False)] == [5]


def test_a_busy_lane_gathers_a_full_pack() -> None:
    lane = Lane(PEER)
    for number in range(BRISK):
        lane.offer(entry(number))
        assert len(take(lane)) == 1
    for number in range(100, 100 + PACK):
        assert take(lane) == []
        lane.offer(entry(number))
    assert len(take(lane)) == PACK


def test_a_stalled_lane_waits_for_all_and_starts_from_the_first() -> None:
    lane = Lane(PEER)
    batches = []
    for number in (1, 2, 3):
        lane.offer(entry(number))
        batches.append(take(lane))
    lane.stalled = True
    lane.landed(batches[1])
    lane.add(batches[1][0])
    lane.offer(entry(4, ordered=False))
    assert [each.id for each in take(lane)] == [4]  # one with a deadline does not wait
    assert take(lane) == []
    lane.landed(batches[0])
    lane.add(batches[0][0])
    assert take(lane) == []
    lane.landed(batches[2])
    assert [each.id for each in take(lane)] == [1, 2]


def test_a_lane_holds_a_bounded_number_and_leaves_the_rest_in_the_table() -> None:
    lane = Lane(PEER)
    for number in range(1, 1000):
        lane.offer(entry(number))
    assert len(lane.waiting) == LOADED
    assert lane.behind
    heavy = Lane(PEER)
    for number in range(1, 100):
        heavy.offer(entry(number, body="x" * 500_000))
    assert heavy.octets <= LOADED_OCTETS + 500_000


def test_a_lane_halves_its_window_once_for_a_burst_of_refusals() -> None:
    lane = Lane(PEER)
    for _ in range(20):
        lane.hold(100.0, 1.0)
    assert lane.window == 16
    for _ in range(2000):
        lane.widen()
    assert lane.window == 32


def test_buckets_refill() -> None:
    time = Time()
    buckets = Buckets(10.0, 20.0, time)
    for _ in range(20):
        buckets.take("a")
    with pytest.raises(RateLimited) as raised:
        buckets.take("a")
    assert raised.value.retry_after == pytest.approx(0.1)
    buckets.take("b")
    time.now += 0.1
    buckets.take("a")
    buckets.charge("a", 30)
    with pytest.raises(RateLimited) as raised:
        buckets.take("a")
    assert raised.value.retry_after == pytest.approx(3.1)


def test_seen_queries_are_forgotten_when_they_expire_and_bounded_until_then() -> None:
    seen = SeenQueries()
    seen.check("a", "1", 1, until=10.0, now=0.0)
    with pytest.raises(Replayed):
        seen.check("a", "1", 1, until=10.0, now=5.0)
    seen.check("a", "1", 1, until=30.0, now=11.0)
    for number in range(SEEN_QUERIES - 1):
        seen.check("b", str(number), 1, until=30.0, now=12.0)
    with pytest.raises(Busy):
        seen.check("c", "1", 1, until=30.0, now=12.0)


@given(st.binary(min_size=1, max_size=5 * CHUNK))
def test_chunks_put_together_are_the_body(body: bytes) -> None:
    assemblies = Assemblies(Time())
    sha256 = hashlib.sha256(body).hexdigest()
    offset = 0
    while offset < len(body):
        part = chunk(body, sha256, offset)
        offset = assemblies.add("sender", part).received
        assert assemblies.add("sender", part).received == offset  # a doubled chunk changes nothing
    assert assemblies.get("sender", sha256, len(body)) == body
    with pytest.raises(Incomplete):
        assemblies.get("another", sha256, len(body))


def part_of(body: bytes, **changes: Any) -> Any:
    return chunk(body, hashlib.sha256(body).hexdigest(), 0).model_copy(update=changes)


@pytest.mark.parametrize("changes", [{"data": "!"}, {"data": ""}, {"data": "AAAA" * 10_000}])
def test_a_bad_chunk(changes: dict[str, Any]) -> None:
    assemblies = Assemblies(Time())
    with pytest.raises(BadBody):
        assemblies.add("sender", part_of(b"hello", **changes))


def test_a_body_that_is_not_what_its_hash_says() -> None:
    assemblies = Assemblies(Time())
    assemblies.add("sender", part_of(b"hello", sha256="0" * 64))
    with pytest.raises(Incomplete):
        assemblies.get("sender", "0" * 64, 5)


def test_assemblies_are_bounded_in_number_and_time() -> None:
    time = Time()
    assemblies = Assemblies(time)
    for number in range(20):
        assemblies.add("sender", part_of(b"hello" * 10_000, sha256=f"{number:064x}"))
    assert len(assemblies._open) == PER_PEER
    whole = 1024 * 1024
    for number in range((IN_ALL - PER_PEER * 50_000) // whole):
        assemblies.add(f"sender {number}", part_of(b"hello", total=whole))
    with pytest.raises(Busy):
        assemblies.add("one more", part_of(b"hello", total=whole))
    time.now += 1000
    assemblies.add("sender", part_of(b"hello"))
    assert len(assemblies._open) == 1
