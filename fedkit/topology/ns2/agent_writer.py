"""Writes agents, applications, program agents and event lists, each of which stands in an attribute `agent`, a line an entry:

Agent/UDP            its class
u                    its name
node=a               its node, the agents that it is joined with, its options and variables; of an event list its members
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fedkit.topology.model import Topology
from fedkit.topology.ns2.words import reference, variable, word

_EVENT_LISTS = {"EventSequence": "append", "EventTimeline": "at", "EventGroup": "add"}
_PROGRAM_OPTIONS = ("command", "dir", "timeout", "expected-exit-code")


@dataclass
class _Agent:
    kind: str
    name: str
    said: dict[str, str] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)


def agent_lines(topology: Topology) -> Iterator[str]:
    """All of them: first made, then joined, as each may name any other."""
    agents = [_parsed(attribute.value) for attribute in topology.attributes if attribute.name == "agent"]
    for agent in agents:
        yield _made(agent)
    connected: set[frozenset[str]] = set()
    for agent in agents:
        yield from _joined(agent, connected)


def _parsed(text: str) -> _Agent:
    kind, name, *rest = text.split("\n")
    if kind in _EVENT_LISTS:
        return _Agent(kind, name, members=rest)
    return _Agent(kind, name, {key: value for key, _, value in (line.partition("=") for line in rest)})


def _made(agent: _Agent) -> str:
    node = agent.said.get("node")
    if agent.kind != "Program" or node is None:
        return f"set {variable(agent.name)} [new {agent.kind}]"
    options = [f" -{name} {word(agent.said[name])}" for name in _PROGRAM_OPTIONS if name in agent.said]
    return f"set {variable(agent.name)} [{reference(node)} program-agent{''.join(options)}]"


def _joined(agent: _Agent, connected: set[frozenset[str]]) -> Iterator[str]:
    own = reference(agent.name)
    program = agent.kind == "Program" and "node" in agent.said
    if "node" in agent.said and agent.kind.startswith("Agent/"):
        yield f"$ns attach-agent {reference(agent.said['node'])} {own}"
    if "agent" in agent.said:
        yield f"{own} attach-agent {reference(agent.said['agent'])}"
    other = agent.said.get("destination")
    if other is not None and frozenset((agent.name, other)) not in connected:
        connected.add(frozenset((agent.name, other)))
        yield f"$ns connect {own} {reference(other)}"
    for name, value in agent.said.items():
        if name not in ("node", "agent", "destination") and not (program and name in _PROGRAM_OPTIONS):
            yield f"{own} set {word(name)} {word(value)}"
    step = 2 if agent.kind == "EventTimeline" else 1
    for place in range(0, len(agent.members), step):
        yield f"{own} {_EVENT_LISTS[agent.kind]} {' '.join(word(text) for text in agent.members[place : place + step])}"
