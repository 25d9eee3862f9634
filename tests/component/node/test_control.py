"""The control network over real HTTP: who may ask, what a master sees, and events that come in order however clocks differ."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.node.kit.conf import Below, Conf
from fedkit.node.kit.control import hands, server
from fedkit.node.kit.control.actions import Actions, shaping
from fedkit.node.kit.control.auth import EPOCH, HEADER, Doorkeeper, Identity, nonce
from fedkit.node.kit.control.client import Client
from fedkit.node.kit.control.clocks import Sample, estimate
from fedkit.node.kit.control.events import Event, Log, event_of
from fedkit.node.kit.control.server import SIZE_LIMIT, Server
from fedkit.node.kit.control.station import MASTER, Station
from fedkit.node.kit.errors import BadRequest, NotAllowed, Unreachable
from fedkit.node.kit.system import System
from tests.support.nodes import until

WHO = Identity("a", "a's key")
Done = list[tuple[str, str, str]]


class Place:
    """A station with its server, whose clock is `skew` seconds wrong."""

    def __init__(self, folder: Path, done: Done, conf: Conf, skew: float = 0.0) -> None:
        self.folder, self.done, self.conf, self.skew = folder / conf.name, done, conf, skew
        self.folder.mkdir()
        conf.control_key = f"the key of {conf.name}"
        self.identity = Identity(conf.name, conf.control_key)
        self.at: tuple[str, int] = ("127.0.0.1", 0)
        self.begin()

    def begin(self) -> None:
        """Come up, again at the same place."""
        self.station = Station(self.conf, self.folder, self._do, lambda: time.time() + self.skew)
        self.server = Server(self.at, self.identity, self.station.answer)
        self.at = self.server.begin()
        self.station.begin()

    def close(self) -> None:
        """Go down."""
        self.server.close()
        self.station.close()

    def client(self, key: str | None = None) -> Client:
        """Somebody who asks it, by its key or by another's."""
        return Client(self.at, self.identity if key is None else Identity(self.conf.name, key))

    def _do(self, target: str, action: str, _ended: Callable[[Any], None]) -> str:
        self.done.append((self.conf.name, target, action))
        return "ok"


class Net:
    """A master, two controllers, three agents, whose clocks differ by minutes."""

    def __init__(self, folder: Path, events: list[tuple[float, str, str, str]]) -> None:
        self.done: Done = []
        self.places: dict[str, Place] = {}
        for name, skew in (("a", 100.0), ("b", -50.0), ("c", 7.0)):
            self._place(folder, Conf(name=name), skew)
        self._place(folder, self._over("control", "a", "b"), 33.0)
        self._place(folder, self._over("control1", "c"), -200.0)
        master = self._over("master", "control", "control1")
        master.role, master.events = MASTER, events
        self._place(folder, master, 0.0)

    def _over(self, name: str, *children: str) -> Conf:
        below = {child: self.places[child] for child in children}
        return Conf(name=name, children={name: Below(one.at, one.identity.key) for name, one in below.items()})

    def _place(self, folder: Path, conf: Conf, skew: float) -> None:
        self.places[conf.name] = Place(folder, self.done, conf, skew)

    def ask(self, method: str, path: str, said: Any = None) -> Any:
        """Of the master."""
        return self.places["master"].client().ask(method, path, said, 30)

    def close(self) -> None:
        """All of it."""
        for place in reversed(self.places.values()):
            place.close()


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """Without events of its own."""
    made = Net(tmp_path, [])
    yield made
    made.close()


def test_the_master_lists_the_nodes_of_both_and_runs_a_command_on_each(net: Net) -> None:
    told = net.ask("GET", "/nodes")
    assert {name: one["controller"] for name, one in told["nodes"].items()} == {
        "a": "control",
        "b": "control",
        "c": "control1",
    }
    assert told["nodes"]["a"]["free_kib"] > 0
    done = net.ask("POST", "/run", {"command": "echo $((6*7)); exit 3"})
    assert done["output"] == {name: {"status": 3, "output": "42\n"} for name in "abc"}
    done = net.ask("POST", "/run", {"command": "true", "nodes": ["b", "nobody"]})
    assert list(done["output"]) == ["b"]
    assert list(done["failed"]) == ["nobody"]


def test_who_does_not_answer_is_told(net: Net) -> None:
    net.places["c"].close()
    told = net.ask("GET", "/nodes")
    assert sorted(told["nodes"]) == ["a", "b"]
    assert "does not answer" in told["unreachable"]["c"]
    net.places["c"].begin()


def test_events_come_in_order_though_clocks_differ_by_minutes(tmp_path: Path) -> None:
    events = [(0.2 * number, "abc"[number % 3], f"p{number}", "start") for number in range(9)]
    net = Net(tmp_path, events)

    def told() -> list[dict[str, Any]]:
        return [event for event in net.ask("GET", "/events")["events"] if event.get("status") == "done"]

    until(lambda: len(told()) == 9, "all events")
    for node in "abc":
        own = [target for at, target, _ in net.done if at == node]
        assert own == [target for _, at, target, _ in events if at == node]
    zero = float((net.places["master"].folder / "zero").read_text())
    for event, (after, node, _, _) in zip(told(), events, strict=True):
        assert event["late"] >= 0
        assert abs(event["due"] - net.places[node].skew - (zero + after)) <= event["clock_error"] + 1e-6
    net.close()


def test_what_shall_happen_now_overtakes_nothing_that_was_due(net: Net) -> None:
    for number in range(5):
        net.ask("POST", "/event", {"node": "c", "target": f"p{number}", "action": "start"})
    until(lambda: len(net.done) == 5, "all events")
    assert [target for _, target, _ in net.done] == [f"p{number}" for number in range(5)]


def test_nothing_is_lost_or_done_twice_when_any_of_them_starts_anew(net: Net) -> None:
    for number, down in enumerate(("c", "control1", "master", "c")):
        net.places[down].close()
        if down == "c":
            net.ask("POST", "/event", {"node": "c", "target": f"p{number}", "action": "start"})
            net.places[down].begin()
        else:
            net.places[down].begin()
            net.ask("POST", "/event", {"node": "c", "target": f"p{number}", "action": "start"})
    until(lambda: len(net.done) >= 4, "all events")
    net.ask("POST", "/event", {"node": "c", "target": "last", "action": "start"})
    until(lambda: net.done[-1][1] == "last", "the last event")
    assert [target for _, target, _ in net.done] == ["p0", "p1", "p2", "p3", "last"]


def test_a_scheduler_that_starts_anew_goes_on_with_its_time(tmp_path: Path) -> None:
    events = [(0.0, "a", "first", "start"), (0.0, "a", "first", "start"), (3.0, "a", "second", "start")]
    net = Net(tmp_path, events)
    until(lambda: len(net.done) == 2, "the first events")
    zero = (net.places["master"].folder / "zero").read_text()
    net.places["master"].close()
    net.places["master"].begin()
    until(lambda: len(net.done) >= 3, "the second event")
    assert [target for _, target, _ in net.done] == ["first", "first", "second"]
    assert (net.places["master"].folder / "zero").read_text() == zero
    net.close()


def test_an_event_that_had_begun_does_not_begin_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "events")
    log.add([Event(1, 0.0, "a", "p", "start"), Event(2, 0.0, "a", "q", "start")])
    log.report(1, status="began")
    with (tmp_path / "events").open("ab") as file:
        file.write(b'{"event": {"seq": 3, "at"')  # cut off
    again = Log(tmp_path / "events")
    assert [event.seq for event in again.events] == [1, 2]
    assert again.reports == {1: {"status": "began"}}
    assert again.add([Event(2, 0.0, "a", "q", "start"), Event(3, 0.0, "a", "r", "start")]) == 3
    assert [event.target for event in Log(tmp_path / "events").events] == ["p", "q", "r"]


# Who may ask


def test_only_who_knows_the_key_may_ask(net: Net) -> None:
    with pytest.raises(NotAllowed, match="let us in"):
        net.places["a"].client("another").ask("GET", "/nodes")
    with pytest.raises(BadRequest, match="no GET /passwords"):
        net.places["a"].client().ask("GET", "/passwords")
    with pytest.raises(BadRequest):
        net.places["a"].client().ask("POST", "/run", {"command": 5})
    strange: list[Any] = [[], {"command": "true", "timeout": math.nan}, {"command": "true", "timeout": -math.inf}]
    for said in strange:
        with pytest.raises(BadRequest):
            net.places["control"].client().ask("POST", "/run", said)
    with pytest.raises(BadRequest):
        net.places["a"].client().ask("POST", "/events", {"events": [{"seq": "x"}]})


def test_what_was_heard_cannot_be_said_again() -> None:
    door = Doorkeeper(WHO)
    number = nonce()
    header = f"{door.epoch} {number} {WHO.request_mac(door.epoch, number, 'POST', '/run', b'{}')}"
    assert door.check(header, "POST", "/run", b"{}") == number
    for method, path, body in (("POST", "/run", b"{}"), ("POST", "/run", b"[]"), ("GET", "/run", b"{}")):
        with pytest.raises(NotAllowed):
            door.check(header, method, path, body)
    with pytest.raises(NotAllowed):
        Doorkeeper(WHO).check(header, "POST", "/run", b"{}")


@given(st.text(max_size=200))
def test_whatever_is_said_at_the_door_is_refused(header: str) -> None:
    with pytest.raises(NotAllowed):
        Doorkeeper(WHO).check(header, "GET", "/nodes", b"")


class Strange(Identity):
    """Proves with what is no ASCII."""

    def answer_mac(self, *_: object) -> str:
        return "\xe9"


@pytest.mark.parametrize("who", [Identity("a", "another key"), Identity("b", WHO.key), Strange("a", WHO.key)])
def test_an_answer_of_somebody_else_is_no_answer(who: Identity) -> None:
    impostor = Server(("127.0.0.1", 0), who, lambda *_: {})
    at = impostor.begin()
    impostor.door.check = lambda *_: nonce()  # type: ignore[method-assign]  # lets everybody in
    with pytest.raises(NotAllowed, match="the answer of"):
        Client(at, WHO).ask("GET", "/nodes")
    impostor.close()
    with pytest.raises(Unreachable):
        Client(at, WHO).ask("GET", "/nodes", timeout=5)


# Who has learned a node's key, or leads its frames elsewhere


def test_who_is_root_on_a_node_commands_nobody_else(net: Net) -> None:
    a = net.places["a"].conf.control_key
    assert net.places["a"].client(a).ask("POST", "/run", {"command": "true"})["output"]
    for other in ("b", "c", "control", "control1", "master"):
        for identity in (Identity(other, a), Identity("a", a)):
            with pytest.raises(NotAllowed) as refused:
                Client(net.places[other].at, identity).ask("POST", "/run", {"command": "true"})
            assert refused.value.code == "kit.not_allowed"


def test_a_command_that_is_led_to_another_node_is_refused(net: Net, tmp_path: Path) -> None:
    a, b = net.places["a"], net.places["b"]
    misled = Conf(name="misled", children={"a": Below(b.at, a.identity.key), "b": Below(b.at, b.identity.key)})
    control = Place(tmp_path, net.done, misled)
    done = control.client().ask("POST", "/run", {"command": f"touch {tmp_path}/ran", "nodes": ["a"]})
    assert "kit.not_allowed" in done["failed"]["a"]
    assert not (tmp_path / "ran").exists()
    assert list(control.client().ask("POST", "/run", {"command": "true"})["output"]) == ["b"]
    control.close()
    number, door = nonce(), Doorkeeper(Identity("b", "one key for both"))
    header = (
        f"{door.epoch} {number} {Identity('a', 'one key for both').request_mac(door.epoch, number, 'GET', '/', b'')}"
    )
    with pytest.raises(NotAllowed):
        door.check(header, "GET", "/", b"")


class Rogue:
    """A node `r` that answers what it likes, under a controller that has an honest node `a`, too."""

    def __init__(self, folder: Path, answer: Callable[[str, str, Any], Any]) -> None:
        self.done: Done = []
        self.server = Server(("127.0.0.1", 0), Identity("r", "its key"), answer)
        self.honest = Place(folder, self.done, Conf(name="a"))
        below = {"r": Below(self.server.begin(), "its key"), "a": Below(self.honest.at, self.honest.identity.key)}
        self.control = Place(folder, self.done, Conf(name="control", children=below))

    def close(self) -> None:
        """All of it."""
        self.server.close()
        self.control.close()
        self.honest.close()


def test_a_node_answers_for_nobody_else(tmp_path: Path) -> None:
    lies = {"nodes": {"a": {"load": -1}, "r": {}}, "unreachable": {"a": "gone"}}
    lies |= {"output": {"a": "lie", "r": "ok"}, "failed": {"a": "lie"}, "last": 0, "time": 0.0}
    lies["events"] = [{"seq": 1, "node": node, "status": "lie"} for node in ("a", "r")]
    net = Rogue(tmp_path, lambda *_: lies)
    ask = net.control.client().ask
    ask("POST", "/event", {"node": "a", "target": "p", "action": "start"})
    until(lambda: net.done == [("a", "p", "start")], "the event")
    told = ask("GET", "/nodes")
    assert told["nodes"]["a"]["load"] >= 0
    assert told["unreachable"] == {}
    told = ask("POST", "/run", {"command": "true"})
    assert (told["output"]["a"]["status"], told["output"]["r"], told["failed"]) == (0, "ok", {})
    assert [(event["node"], event["status"]) for event in ask("GET", "/events")["events"]] == [("a", "done")]
    net.close()


DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        [],
        5,
        {"nodes": 5},
        {"nodes": {"r": 5}},
        {"last": None, "events": [{}]},
        {"nodes": {"r": {"x": DEEP}}, "unreachable": {}},
    ],
)
def test_a_node_that_answers_nonsense_hinders_nobody(tmp_path: Path, nonsense: Any) -> None:
    net = Rogue(tmp_path, lambda *_: nonsense)
    ask = net.control.client().ask
    for node in "ra":
        ask("POST", "/event", {"node": node, "target": "p", "action": "start"})
    until(lambda: net.done == [("a", "p", "start")], "the event")
    told = ask("GET", "/nodes")
    assert (list(told["nodes"]), told["unreachable"]) == (["a"], {"r": "r answers nonsense [kit.bad_request]"})
    assert [event["status"] for event in ask("GET", "/events")["events"] if event["node"] == "a"] == ["done"]
    net.close()


def test_a_node_that_takes_no_event_is_not_sent_it_without_end(tmp_path: Path) -> None:
    sent: list[str] = []

    def take_nothing(_method: str, path: str, _said: Any) -> Any:
        sent.append(path)
        return {"last": 0, "time": 0.0}

    net = Rogue(tmp_path, take_nothing)
    for node in "ra":
        net.control.client().ask("POST", "/event", {"node": node, "target": "p", "action": "start"})
    until(lambda: net.done == [("a", "p", "start")], "the event")
    until(lambda: sent.count("/events") > 2, "the other was sent its event")
    net.close()  # which waits for who sends


def test_a_node_that_does_not_answer_keeps_no_event_from_others(tmp_path: Path) -> None:
    goes_on = Signal()
    net = Rogue(tmp_path, lambda *_: goes_on.wait(300) and {})
    try:
        for number in range(3):
            net.control.client().ask("POST", "/event", {"node": "a", "target": f"p{number}", "action": "start"})
            until(lambda number=number: ("a", f"p{number}", "start") in net.done, "the event")
    finally:
        goes_on.set()
        net.close()


def test_an_answer_that_comes_octet_by_octet_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=drip, args=(listening,), daemon=True).start()
        with pytest.raises(Unreachable):
            Client(listening.getsockname(), WHO).ask("GET", "/nodes", timeout=2)


def drip(listening: socket.socket) -> None:
    """An answer that never ends, as long as somebody reads it."""
    connection, _ = listening.accept()
    with connection, contextlib.suppress(OSError):
        while True:
            connection.sendall(b"H")
            time.sleep(0.2)


def test_what_is_too_large_is_not_read(net: Net) -> None:
    connection = HTTPConnection(*net.places["a"].at, timeout=20)
    connection.putrequest("POST", "/run")
    connection.putheader("Content-Length", str(SIZE_LIMIT + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    with socket.create_connection(net.places["a"].at, timeout=20) as raw:
        raw.sendall(b"\x00" * 70_000)
    assert net.ask("GET", "/nodes")["unreachable"] == {}
    answer = HTTPConnection(*net.places["a"].at, timeout=20)
    answer.request("GET", "/nodes", headers={HEADER: "x y z"})
    refused = answer.getresponse()
    assert (refused.status, refused.read()) == (401, b"")
    assert refused.headers[EPOCH]
    answer.close()


# Clocks and actions


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), st.floats(0, 1e5)), min_size=1, max_size=8),
)
def test_the_true_offset_is_within_the_bound(offset: float, trips: list[tuple[float, float, float]]) -> None:
    samples = [Sample(at, at + there + offset, at + there + back) for there, back, at in trips]
    found = estimate(samples)
    assert abs(found.seconds - offset) <= found.bound + 1e-6


def test_programs_start_stop_and_tell_how_they_ended(tmp_path: Path) -> None:
    programs = {
        "p": {"command": f"echo ran >>{tmp_path}/out; exit 2", "expected-exit-code": "2"},
        "q": {"command": "sleep 1000"},
    }
    actions = Actions(System(), programs, {}, [])
    ends: list[Any] = []
    assert actions.do("p", "start", ends.append) == "started"
    until(lambda: ends == [{"status": 2, "expected": True}], "it ends")
    actions.do("p", f"run -command 'echo other >>{tmp_path}/out'", ends.append)
    until(lambda: len(ends) == 2, "it ends")
    assert (tmp_path / "out").read_text() == "ran\nother\n"
    assert ends[1] == {"status": 0, "expected": False}
    actions.do("q", "start", ends.append)
    assert actions.do("q", "stop", ends.append) == "stopped"
    until(lambda: len(ends) == 3, "it ends")
    assert actions.do("q", "stop", ends.append) == "did not run"
    actions.do("q", "start -timeout 0.1", ends.append)
    until(lambda: len(ends) == 4, "its time is over")
    for target, action in (("r", "start"), ("p", "fly"), ("p", "start -wings 2")):
        with pytest.raises(BadRequest):
            actions.do(target, action, ends.append)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"BANDWIDTH": "2000"}, "tbf rate 2000000bit burst 32kb latency 50ms"),
        ({"DELAY": "20", "PLR": "0.01"}, "netem delay 20ms loss 1%"),
        ({"BANDWIDTH": "0.1"}, "tbf rate 100bit burst 32kb latency 50ms"),
        ({"BANDWIDTH": "1e-9"}, "tbf rate 8bit burst 32kb latency 50ms"),
        ({"bandwidth": "2000", "delay": "5"}, "netem rate 2000000bit delay 5ms"),
    ],
)
def test_what_a_link_becomes(said: dict[str, str], words: str) -> None:
    assert " ".join(shaping(said)) == words


@pytest.mark.parametrize("said", [{}, {"SPEED": "1"}, {"DELAY": "-1"}])
def test_what_a_link_cannot_become(said: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        shaping(said)


def test_an_answer_is_json_whatever_a_command_prints(net: Net) -> None:
    done = net.ask("POST", "/run", {"command": "printf '\\377\\000'; yes | head -c 300000", "nodes": ["a"]})
    assert done["output"]["a"]["status"] == 0
    assert len(json.dumps(done)) < 200_000
    late = net.ask("POST", "/run", {"command": "sleep 1000", "nodes": ["a"], "timeout": 0.2})
    assert late["output"]["a"]["status"] == 124


def test_a_command_that_prints_nowhere_is_ended_in_time() -> None:
    assert hands.run("exec >/dev/null 2>&1; sleep 4; exit 3", 0.3)["status"] == hands.TIMED_OUT
    assert hands.run("exec >/dev/null 2>&1; exit 3", 30)["status"] == 3


def test_an_agent_waits_for_its_address() -> None:
    agent = Server(("192.0.2.77", 0), WHO, lambda *_: {})  # no interface has it yet
    assert agent.begin()[0] == "192.0.2.77"
    agent.close()


def hung_up(connection: socket.socket) -> bool:
    """Whether the other end takes no more."""
    try:
        connection.sendall(b"G")
    except ConnectionError:
        return True
    return False


def test_who_says_a_request_octet_by_octet_takes_nobodys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    agent = Server(("127.0.0.1", 0), WHO, lambda *_: {})
    at = agent.begin()
    with socket.create_connection(at, timeout=20) as slow:
        until(lambda: hung_up(slow), "the end of their patience")
    assert Client(at, WHO).ask("GET", "/nodes") == {}
    agent.close()


def test_a_courier_survives_what_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = iter([OSError("No space left on device"), BadRequest("too many")])
    release = Log.release

    def sometimes(log: Log, events: Any) -> int:
        for error in failing:
            raise error
        return release(log, events)

    monkeypatch.setattr(Log, "release", sometimes)
    net = Net(tmp_path, [(0.0, "a", "x", "start")])
    try:
        until(lambda: ("a", "x", "start") in net.done, "the event")
    finally:
        net.close()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_an_event_is_at_some_time(number: float) -> None:
    for said in ({"at": number}, {"at": 1.0, "error": number}):
        with pytest.raises(BadRequest):
            event_of({"seq": 1, "node": "a", "target": "x", "action": "start", **said})
