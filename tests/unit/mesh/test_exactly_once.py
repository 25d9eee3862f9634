"""The law of the mesh: whatever is lost, doubled, delayed, reordered or killed, every command takes effect exactly once.

Hypothesis plays the network and the reaper: it decides about each packet, and at which commit (before or after it) which
site is killed. Then the world is left in peace, and the books must agree.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.memory_network import Deliveries, MemoryNetwork, Packet
from tests.support.mesh_sites import Site
from tests.support.virtual_time import Crash, run

PEACE = 3600.0  # seconds: far more than the longest back-off

fates = st.lists(
    st.sampled_from(["pass", "pass", "pass", "drop", "double", "late", "very late", "hold"]), min_size=1, max_size=40
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(["a", "b"]), st.booleans()),
        st.tuples(st.just("wait"), st.floats(0.001, 20.0), st.none()),
        st.tuples(st.just("kill"), st.sampled_from(["a", "b"]), st.none()),
        st.tuples(st.just("doom"), st.sampled_from(["a", "b"]), st.integers(0, 12)),
        st.tuples(st.just("cut"), st.booleans(), st.none()),
        st.tuples(st.just("link"), st.sampled_from(["a", "b"]), st.none()),
    ),
    min_size=3,
    max_size=25,
)


class Doom:
    """Kills its site at the n-th commit moment from now: half of them lie before a commit, half after."""

    def __init__(self, site: Site, moments: int) -> None:
        self.site = site
        self.left = moments
        self.struck = False

    def __call__(self, moment: str) -> None:
        del moment
        if self.left == 0:
            self.struck = True
            self.site.link.set_up(False)  # a dead process says nothing more,
        self.left -= 1
        if self.struck:
            raise Crash  # and commits nothing more


class World:
    """Two sites, their network, and what was asked of them."""

    def __init__(self, folder: Path, chosen: list[str]) -> None:
        self.network = MemoryNetwork()
        self.network.faults = self._fate
        self.sites = {name: Site(self.network, name, folder) for name in ("a", "b")}
        self.chosen = chosen
        self.index = 0
        self.said: dict[str, list[tuple[str, bool]]] = {"a": [], "b": []}
        self.dooms: dict[str, Doom] = {}

    def _fate(self, packet: Packet) -> Deliveries:
        self.index += 1
        match self.chosen[self.index % len(self.chosen)]:
            case "drop":
                return []
            case "double":
                return [(0.0, packet), (0.02, packet)]
            case "late":
                return [(0.5, packet)]
            case "very late":
                return [(30.0, packet)]
            case "hold":
                return [(0.0, packet), (40.0, packet)]
            case _:
                return [(0.0, packet)]

    async def step(self, what: str, first: str | float | bool, second: bool | int | None) -> None:
        if what == "say":
            await self._say(str(first), bool(second))
        elif what == "wait":
            await asyncio.sleep(float(first))
        elif what == "kill":
            await self.restart(str(first))
        elif what == "doom":
            doom = self.dooms[str(first)] = Doom(self.sites[str(first)], int(second or 0))
            self.sites[str(first)].db.on_commit = doom
        elif what == "cut":
            (self.network.cut if first else self.network.heal)("fm.a.test", "fm.b.test")
        elif what == "link":
            link = self.sites[str(first)].link
            link.set_up(not link.connected)
        for name, doom in list(self.dooms.items()):
            if doom.struck:
                await self.restart(name)

    async def restart(self, name: str) -> None:
        self.dooms.pop(name, None)
        await self.sites[name].stop()
        await self.sites[name].start()

    async def _say(self, name: str, ordered: bool) -> None:
        other = self.sites["b" if name == "a" else "a"].peer
        text = f"{name}{len(self.said[name])}"
        try:
            await self.sites[name].say(other, text, None if ordered else 10.0)
        except Crash:
            if text.encode() not in self._outbox(name):
                return  # died before its commit: never said
        self.said[name].append((text, ordered))

    def _outbox(self, name: str) -> list[bytes]:
        rows = self.sites[name].rows("mesh_outbox")
        return [str(row["body"]).split('"')[3].encode() for row in rows]

    async def peace(self) -> None:
        self.network.faults = lambda packet: [(0.0, packet)]
        self.network.heal("fm.a.test", "fm.b.test")
        for name, site in self.sites.items():
            await self.restart(name)
            site.link.set_up(True)
        await asyncio.sleep(PEACE)

    def check(self) -> None:
        for name, other in (("a", "b"), ("b", "a")):
            effects = self.sites[other].effects()
            outcomes = self.sites[name].outcomes()
            assert max(Counter(effects).values(), default=1) == 1, f"done twice: {effects}"
            ordered = [text for text, in_order in self.said[name] if in_order]
            assert [text for text in effects if text in ordered] == ordered
            assert sorted(text for text, _ in outcomes) == sorted(text for text, _ in self.said[name])
            for text, code in outcomes:
                assert code in ("", "mesh.no_answer", "mesh.unreachable")
                assert code != "" or text in effects, f"{text} was told as done and is not"
                assert code != "mesh.unreachable" or text not in effects, f"{text} was told as never sent and is done"
            assert self.sites[name].waiting() == 0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=fates, script=steps)
def test_every_command_takes_effect_exactly_once(
    chosen: list[str], script: list[tuple[str, str | float | bool, bool | int | None]]
) -> None:
    async def scenario(folder: Path) -> None:
        world = World(folder, chosen)
        for site in world.sites.values():
            await site.start()
        for what, first, second in script:
            await world.step(what, first, second)
        await world.peace()
        world.check()
        for site in world.sites.values():
            await site.stop()

    with tempfile.TemporaryDirectory() as folder:
        run(scenario(Path(folder)))
