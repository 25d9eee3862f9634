"""What events do on a node: program agents start and stop commands, links go down, up, or change.

    prog start | run | stop | modify -command C -dir D -timeout S -expected-exit-code N
    link0 down | up | modify BANDWIDTH=kb/s DELAY=ms PLR=0…1             (Emulab's words)

A link is this node's interface that has the link's address. Rates are tc's token bucket, delays and losses netem's; a kernel without that
refuses, and the event's report says so.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from fedkit.node.kit.errors import BadRequest, KitError
from fedkit.node.kit.network import HANDLE, Hop, add, device_of
from fedkit.node.kit.system import System

BURST = 32  # kB that a rate lets through at once
QUEUE = "50ms"
PROGRAM_OPTIONS = {"command", "dir", "timeout", "expected-exit-code"}
LINK_OPTIONS = {"BANDWIDTH", "DELAY", "PLR"}
_NOTHING: Mapping[str, str] = {}


@dataclass
class Actions:
    """The targets of one node."""

    system: System
    programs: dict[str, dict[str, str]]
    links: Mapping[str, str]
    routes: list[tuple[str, str]]
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def do(self, target: str, action: str, ended: Callable[[Any], None]) -> str:
        """Carry out one; raises `KitError`, `OSError` or `ValueError`."""
        verb, *words = shlex.split(action)
        if target in self.programs:
            return self._program(target, verb.lower(), words, ended)
        if target in self.links:
            return self._link(target, verb.lower(), words)
        raise BadRequest(f"this node has no program or link {target}")

    # Programs

    def _program(self, name: str, verb: str, words: list[str], ended: Callable[[Any], None]) -> str:
        said = {word.removeprefix("-"): value for word, value in zip(words[::2], words[1::2], strict=True)}
        if strange := sorted(set(said) - PROGRAM_OPTIONS):
            raise BadRequest(f"a program has no option {strange[0]}")
        if verb == "stop":
            return self._stop(name)
        options = self.programs[name] | said
        if verb in ("modify", "set"):
            self.programs[name] = options
            return "modified"
        if verb not in ("start", "run"):
            raise BadRequest(f"a program starts, runs, stops and is modified; it does not {verb}")
        self._stop(name)
        process = subprocess.Popen(
            ["/bin/sh", "-c", options.get("command", "")],
            stdin=subprocess.DEVNULL,
            cwd=options.get("dir", "/"),
            start_new_session=True,
        )
        self._running[name] = process
        Thread(target=self._wait, args=(process, options, ended), daemon=True).start()
        return "started"

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], options: Mapping[str, str], ended: Callable[[Any], None]) -> None:
        limit = float(options.get("timeout", 0)) or None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            _kill(process)
            status = process.wait()
        ended({"status": status, "expected": int(options.get("expected-exit-code", 0)) == status})

    def _stop(self, name: str) -> str:
        process = self._running.pop(name, None)
        if process is None or process.poll() is not None:
            return "did not run"
        _kill(process)
        return "stopped"

    # Links

    def _link(self, name: str, verb: str, words: list[str]) -> str:
        device = device_of(self.links[name])
        if device is None:
            raise BadRequest(f"no interface has {self.links[name]}")
        if verb == "down":
            self.system.run("ip", "link", "set", device, "down")
        elif verb == "up":
            self.system.run("ip", "link", "set", device, "up")
            self._routes_again()
        elif verb == "modify":
            said = dict(word.split("=", 1) for word in words)
            self.system.run("tc", "qdisc", "replace", "dev", device, "root", "handle", HANDLE, *shaping(said))
        else:
            raise BadRequest(f"a link goes down, up, or is modified; it does not {verb}")
        return f"{device} {verb}"

    def _routes_again(self) -> None:
        """The kernel forgot those over an interface that was down."""
        for destination, via in self.routes:
            try:
                add(self.system, Hop(destination, via, "", 0))
            except KitError as error:
                self.system.say(f"{error}")


def shaping(said: Mapping[str, str]) -> list[str]:
    """tc's words for a rate (kb/s), a delay (ms) and a loss (0 to 1)."""
    upper = {name.upper(): float(value) for name, value in said.items()}
    if not upper or set(upper) - LINK_OPTIONS or min(upper.values()) < 0:
        raise BadRequest(f"a link is modified by {', '.join(sorted(LINK_OPTIONS))}")
    rate = [f"{max(round(upper['BANDWIDTH'] * 1000), 8)}bit"] if upper.get("BANDWIDTH") else []  # tc knows whole octets
    if set(upper) == {"BANDWIDTH"}:
        return ["tbf", "rate", *rate, "burst", f"{BURST}kb", "latency", QUEUE]
    words = ["netem", *(["rate", *rate] if rate else [])]
    words += ["delay", f"{upper['DELAY']:g}ms"] if "DELAY" in upper else []
    return words + (["loss", f"{upper['PLR'] * 100:g}%"] if "PLR" in upper else [])


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
