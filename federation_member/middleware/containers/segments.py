"""Segments of the `containers` kind: what the book, the fence and the host program (nodes/) have of each, kept in agreement.

As with machines: the record first, then the segment; its end first, then the record's. A record without `complete` was never handed
out, and whatever there is of it is cleared away before it is made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from ipaddress import IPv4Address
from typing import Any

import structlog
from pydantic import BaseModel

from federation_member.middleware.containers import network
from federation_member.middleware.containers.book import Book, Part, Record
from federation_member.middleware.containers.config import ContainersConfig
from federation_member.middleware.containers.fence import Admitted, Fence
from federation_member.middleware.containers.ids import IdSpace
from federation_member.middleware.containers.joining import Joining
from federation_member.middleware.containers.nodes import client
from federation_member.middleware.containers.nodes.plan import GATE, Place, Planner, check, uplink_name
from federation_member.middleware.containers.runtime import Runtime, group_of
from federation_member.middleware.contract import (
    MiddlewareError,
    NoCapacity,
    NodeRequest,
    Owned,
    PortalRequest,
    Printed,
    SegmentRequest,
    Status,
    UnusableSpec,
)
from federation_member.middleware.inside.files import ACCOUNT
from federation_member.middleware.inside.host_key import HostKey
from fedkit.node.script import LOG
from fedkit.protocol.lending import CONSOLE_LIMIT, Instance
from fedkit.protocol.segments import NodeInfo, NodeStatus, Operation, PortalInfo, SegmentInfo

log = structlog.get_logger()
SEGMENT = "segment"
PORTAL = "portal "  # before a portal's digest: it is no node
GONE = "The segment ended."
CONSOLE = f"tail -c {CONSOLE_LIMIT} {LOG}"


class Segments:
    """Makes, watches and removes them; `changed` is told of every change."""

    def __init__(
        self,
        config: ContainersConfig,
        book: Book,
        joining: Joining,
        fence: Fence,
        ids: IdSpace,
        runtime: Runtime,
        changed: Callable[[str], None],
    ) -> None:
        self._config, self._book, self._joining, self._fence = config, book, joining, fence
        self._ids, self._runtime, self._changed = ids, runtime, changed
        self._watches: dict[str, client.Watch] = {}

    def look_around(self) -> None:
        """Watch what is here."""
        for record in self._book:
            if record.kind == SEGMENT:
                self._watch(record.key)

    def stop(self) -> None:
        """Watch no longer; segments stay."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    async def make(self, key: str, request: SegmentRequest, group: str) -> Record:
        """A new segment, from what is in the book of it or from nothing."""
        check(request, self._config.subnet)
        record = self._book.get(key)
        if record is not None:
            await self.unmake(record, group)
        names = [*_names(request), *([GATE] if request.tunnel else [])]
        keys = {name: HostKey.generate() for name in names}
        record = self._new(key, record, request, keys)
        self._book.put(record)
        planner = Planner(self._config, self._place(record, keys, group), request)
        plan = planner.whole()
        await self._fence.admit_all(identities(record))
        await client.launch(plan, self._book.folder(key))
        self._watch(key)
        return record

    async def adapt(self, record: Record, request: SegmentRequest, group: str) -> Record:
        """Make a segment that runs so as it is wanted now: portals that changed or ended are made anew, nodes come, parts go.

        What the book has and the program has not, because a member ended in between, is made as well.
        """
        check(request, self._config.subnet)
        folder = self._book.folder(record.key)
        try:
            there = await client.look(folder)
        except (MiddlewareError, TimeoutError):
            return record  # it has ended; whoever looks at it next is told
        wanted = {name: _digest(part) for name, part in _parts(request).items()}
        lost = {name for name, part in record.parts.items() if _is_lost(name, part, there)}
        kept = {name for name, part in record.parts.items() if name == GATE or wanted.get(name) == part.digest} - lost
        fresh, gone = wanted.keys() - kept, record.parts.keys() - kept - {GATE}
        if not fresh and not gone and GATE not in lost:
            return record
        keys = {name: HostKey.generate() for name in [*_names(request), GATE] if name in fresh or name == GATE}
        new = self._adapted(record, request, keys, fresh, gone)
        self._book.put(new)
        await self._fence.admit_all(identities(new))
        planner = Planner(self._config, self._place(new, keys, group), request)
        nodes = [planner.part(part) for name, part in _parts(request).items() if name in fresh]
        if GATE in lost or any(node.name in fresh for node in request.nodes):
            nodes += planner.gate()  # it holds the ports of all
        await client.ask(folder, do="remove", nodes=sorted(gone - fresh))
        await client.ask(folder, do="add", nodes=nodes, bridges=planner.bridges())
        await self._fence.forget_all({port for port, *_ in identities(record)} - {port for port, *_ in identities(new)})
        return new

    async def unmake(self, record: Record, group: str) -> None:
        """Remove what there is of a segment, except its record."""
        if watch := self._watches.pop(record.key, None):
            watch.close()
        folder = self._book.folder(record.key)
        if (folder / client.LOCK).exists():
            await asyncio.to_thread(client.end, folder, self._ids.of_machine(record.number).first)
        numbers = [part.number for part in record.parts.values()]
        await network.remove_links([uplink_name(record.number, number) for number in numbers])
        if self._runtime.cgroups is not None:
            name = group_of(group, record.key)
            for number in numbers:
                await self._runtime.cgroups.remove(f"{name}/{number}")
            await self._runtime.cgroups.remove(name)
        await self._fence.forget_all(port for port, *_ in identities(record))

    async def owned(self, record: Record) -> Owned:
        """How a segment is now."""
        if not record.complete:
            reason = "Not finished; create it again to go on, or delete it."
            return Owned(record.key, SEGMENT, Status.CREATING, record.instance, reason)
        try:
            looks = await client.look(self._book.folder(record.key))
        except (MiddlewareError, TimeoutError):
            return Owned(record.key, SEGMENT, Status.FAILED, record.instance, GONE)
        instance = record.instance.model_copy(update={"segment": _info(record, looks)})
        return Owned(record.key, SEGMENT, Status.RUNNING, instance)

    async def operate(self, record: Record, operation: Operation, node: str, command: str) -> Printed:
        """Do something to a node; raises `MiddlewareError`."""
        part = record.parts.get(node)
        if part is None or not _is_node(node, part):
            raise UnusableSpec(f"The segment has no node {node[:64]}.")
        folder = self._book.folder(record.key)
        if operation in (Operation.RUN, Operation.CONSOLE):
            line = CONSOLE if operation is Operation.CONSOLE else command
            answer = await client.ask(folder, do="run", node=node, command=line)
            return Printed(str(answer["output"]), int(answer["status"]))
        await client.ask(folder, do=operation.value, nodes=[node])
        look = (await client.look(folder))[node]
        if look.status == NodeStatus.FAILED:
            raise MiddlewareError(look.reason)
        return Printed()

    def _watch(self, key: str) -> None:
        self._watches[key] = client.Watch(self._book.folder(key), lambda: self._changed(key))

    def _new(self, key: str, old: Record | None, request: SegmentRequest, keys: dict[str, HostKey]) -> Record:
        """Choose number and addresses; no await in here, so nobody else can choose the same."""
        self._check_room(key, len(keys))
        addresses = [IPv4Address(address) for address in old.addresses] if old else []
        if len(addresses) < len(keys):
            addresses = self._joining.first_addresses(len(keys))
        digests = {name: _digest(part) for name, part in _parts(request).items()} | {GATE: ""}
        return Record(
            key=key,
            kind=SEGMENT,
            number=old.number if old else self._book.free_number(),
            instance=Instance(name=SEGMENT, user=ACCOUNT),
            account=request.account.name,
            parts={
                name: Part(number=number, address=str(address), host_key=keys[name].public, digest=digests[name])
                for number, (name, address) in enumerate(zip(keys, addresses, strict=False))
            },
        )

    def _adapted(
        self,
        record: Record,
        request: SegmentRequest,
        keys: dict[str, HostKey],
        fresh: Iterable[str],
        gone: Iterable[str],
    ) -> Record:
        """The record with its new parts, which keep the numbers and addresses that they had."""
        digests = {name: _digest(part) for name, part in _parts(request).items()}
        missing = [name for name in digests if name in set(fresh) and name not in record.parts]
        if missing:
            self._check_room(record.key, len(digests) + (GATE in record.parts))
        addresses = iter(self._joining.first_addresses(len(missing)))
        parts = {name: part for name, part in record.parts.items() if name in digests or name == GATE}
        taken = {part.number for part in record.parts.values()}
        numbers = (number for number in range(len(taken) + len(missing)) if number not in taken)
        for name in fresh:
            known = record.parts.get(name)
            number, address = (known.number, known.address) if known else (next(numbers), str(next(addresses)))
            parts[name] = Part(number=number, address=address, host_key=keys[name].public, digest=digests[name])
        return record.model_copy(update={"parts": parts})

    def _check_room(self, key: str, parts: int) -> None:
        """Raise `NoCapacity` unless a segment may have so many."""
        others = sum(len(record.addresses) for record in self._book if record.key != key)
        if others + parts > self._config.limits.machines:
            raise NoCapacity(f"{others} machines run here; there is no room for {parts} more.")

    def _place(self, record: Record, keys: dict[str, HostKey], group: str) -> Place:
        folder = self._book.folder(record.key)
        cgroups = self._runtime.cgroups
        return Place(
            key=record.key,
            number=record.number,
            ids=self._ids.of_machine(record.number),
            folder=folder,
            lock=folder / client.LOCK,
            work=str(self._runtime.mount_point(folder, self._config.all_images.values())),
            group=group_of(group, record.key) if cgroups else None,
            roots=cgroups.roots if cgroups else (),
            numbers={name: part.number for name, part in record.parts.items()},
            addresses={name: IPv4Address(part.address) for name, part in record.parts.items()},
            host_keys=keys,
        )


def identities(record: Record) -> list[Admitted]:
    """What the fence lets through from a segment's parts."""
    found = [(uplink_name(record.number, part.number), IPv4Address(part.address)) for part in record.parts.values()]
    return [(port, network.hardware_address(address), address) for port, address in found]


def _parts(request: SegmentRequest) -> dict[str, NodeRequest | PortalRequest]:
    parts: list[NodeRequest | PortalRequest] = [*request.nodes, *request.portals]
    return {part.name: part for part in parts}


def _names(request: SegmentRequest) -> list[str]:
    names = [*(node.name for node in request.nodes), *(portal.name for portal in request.portals)]
    if len(set(names)) < len(names):
        raise UnusableSpec("Two parts of the segment have the same name.")
    return names


def _digest(part: NodeRequest | PortalRequest) -> str:
    """What a part is made anew for. A node's way to others may change while it runs: whoever changes it tells the node."""
    if isinstance(part, NodeRequest):
        part = replace(part, routes=(), forwards=False, startup="", script="", mounts=())
    said = hashlib.sha256(repr(_unusual(part)).encode()).hexdigest()
    return said if isinstance(part, NodeRequest) else PORTAL + said


def _unusual(value: Any) -> Any:
    """What is not as it is by default: so a field that a newer program adds makes no part anew that has no use for it."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_defaults=True)
    if isinstance(value, tuple):
        return [_unusual(one) for one in value]
    if not is_dataclass(value):
        return value
    said = ((one, getattr(value, one.name)) for one in fields(value))
    return {one.name: _unusual(found) for one, found in said if found != _default(one)}


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _is_lost(name: str, part: Part, there: client.Looks) -> bool:
    """Whether a part is not there, or is none of those whose end is their author's affair, and has ended."""
    if name not in there:
        return True
    return not _is_node(name, part) and there[name].status == NodeStatus.FAILED


def _is_node(name: str, part: Part) -> bool:
    return name != GATE and not part.digest.startswith(PORTAL)


def _info(record: Record, looks: client.Looks) -> SegmentInfo:
    nothing = client.Look(NodeStatus.FAILED.value, "It is not there.")
    nodes, portals = [], []
    for name, part in record.parts.items():
        look = looks.get(name, nothing)
        status, reason = NodeStatus(look.status), look.reason[:512]
        if _is_node(name, part):
            nodes.append(
                NodeInfo(
                    name=name,
                    status=status,
                    reason=reason,
                    address=part.address,
                    user=ACCOUNT,
                    host_keys=[part.host_key],
                )
            )
        elif name != GATE:
            told = look.brief or {}  # what it does not say of itself stays unset
            portals.append(PortalInfo(connector=name, status=status, reason=reason, host_key=part.host_key, **told))
    return SegmentInfo(nodes=nodes, portals=portals)
