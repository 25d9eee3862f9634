"""What a portal says of itself, written anew every second, and when it is joined or parted.

status.json    how it is joined, by which plane, and what each plane was measured to do
brief.json     of that, whether all crossings are joined, by which plane, and its delay and rate: for whoever watches many
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkit.portal.classic_session import ClassicSession
from fedkit.portal.planes.contract import Plane, PlaneName
from fedkit.portal.session import Session

if TYPE_CHECKING:
    from fedkit.portal.service import Portal

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds
BRIEF = "brief.json"


class StatusFile:
    """`path` and the other beside it. Rates are those since it was written last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._brief = path.with_name(BRIEF)
        self._due = 0.0
        self._planes_before: list[Plane | None] = []
        self._failed = False
        self._before: tuple[float, dict[str, tuple[int, int]]] = 0.0, {}

    def write(self, portal: Portal, now: float) -> None:
        """Write it, if it is time, or if it is news how crossings are joined."""
        planes = [one.plane for one in portal.switch.crossings.values()]
        if now < self._due and planes == self._planes_before:
            return
        self._due, self._planes_before = now + EVERY, planes
        told = self._told(portal, now)
        try:
            _replace(self._path, json.dumps(told, indent=1) + "\n")
            _replace(self._brief, json.dumps(_brief(told)) + "\n")
        except OSError as error:  # the disk is full, say: the networks stay joined all the same
            if not self._failed:
                log.warning("%s cannot be written: %s", self._path, error.strerror)
            self._failed = True
        else:
            self._failed = False

    def remove(self) -> None:
        """The portal has stopped."""
        for path in (self._path, self._brief):
            path.unlink(missing_ok=True)

    def _told(self, portal: Portal, now: float) -> dict[str, Any]:
        own = portal.own
        classic = [one for one in portal.sessions if isinstance(one, ClassicSession) and one.joined]
        planes = own.planes if own is not None else [plane for one in classic for plane in one.planes]
        joined = own is not None and own.choice.plane is not None
        return {
            "role": "active" if portal.config.active else "passive",
            "joined": joined or bool(classic),
            "plane": own.choice.plane if own is not None else (PlaneName.CLASSIC if classic else None),
            "changes": own.choice.changes if own is not None else 0,
            "why": "" if joined or classic else portal.why,
            "congestion": own.conn.congestion if own is not None else "",
            "planes": self._planes(planes, own, now),
            "crossings": {
                str(tag): {
                    **asdict(one.counts),
                    "plane": one.plane.name if one.plane is not None else None,
                    "state": one.guard.state,
                    "loops": one.guard.loops,
                }
                for tag, one in portal.switch.crossings.items()
            },
            "unknown_tags": portal.switch.unknown,
        }

    def _planes(self, planes: list[Plane], own: Session | None, now: float) -> dict[str, Any]:
        octets: dict[str, tuple[int, int]] = {}
        spoilt: dict[str, int] = {}
        for plane in planes:
            sent, received = octets.get(plane.name, (0, 0))
            octets[plane.name] = sent + plane.traffic.sent, received + plane.traffic.received
            spoilt[plane.name] = spoilt.get(plane.name, 0) + plane.traffic.spoilt
        passed = now - self._before[0]
        told = {
            name: {
                "sent_octets": sent,
                "received_octets": received,
                "spoilt": spoilt[name],
                "sent_mbps": _rate(sent - self._before[1].get(name, (0, 0))[0], passed),
                "received_mbps": _rate(received - self._before[1].get(name, (0, 0))[1], passed),
                **_path(own, PlaneName(name)),
            }
            for name, (sent, received) in octets.items()
        }
        self._before = now, octets
        return told


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text)
    unfinished.rename(path)


def _brief(told: dict[str, Any]) -> dict[str, Any]:
    plane = told["planes"].get(told["plane"], {})
    return {
        "joined": told["joined"] and all(one["plane"] for one in told["crossings"].values()),
        "plane": told["plane"],
        "delay_ms": plane.get("delay_ms"),
        "mbps": plane["sent_mbps"] + plane["received_mbps"] if plane else None,
    }


def _rate(octets: int, seconds: float) -> float:
    return round(max(octets, 0) * 8 / seconds / 1e6, 3) if seconds > 0 else 0.0


def _path(own: Session | None, name: PlaneName) -> dict[str, Any]:
    path = own.paths.get(name) if own is not None else None
    if own is None or path is None:
        return {}
    health = own.datagrams.health if name == PlaneName.DATAGRAMS and own.datagrams is not None else own.ping
    return {
        "alive": path.alive,
        "delay_ms": _ms(path.delay),
        "delay_now_ms": _ms(health.delay_now),
        "loss": round(path.loss, 5),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
