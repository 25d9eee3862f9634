"""A lab as its owner uses it: the command line, the demo's story and the tests.

    with Lab.up("demo", Plan(2)) as lab:              # ends with the process that built it
        lab.run("site-a/dmz", ["ss", "-tln"])
        lab.kill("site-b/member"); lab.start("site-b/member")
    Lab.attach("demo").down()

Commands are run in the lab's namespaces by nsenter(1); a terminal passes through.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from deploy.lab import cgroups
from deploy.lab.credentials import peer_credentials
from deploy.lab.errors import CommandTimedOut, LabFailed, NotUp
from deploy.lab.launch import Launched, address, launch
from deploy.lab.places import ENVIRONMENT, PATH, RUN
from deploy.lab.topology import Plan, namespace
from fedkit.errors import RemoteError

Report = Callable[[str, float], None]
GONE_TIMEOUT = 20.0  # seconds the kernel may take to end all processes
LOOK_AGAIN = 0.01  # seconds
CertificateKind = Literal["good", "expired", "wrong-name", "wrong-authority"]


class Lab:
    """A running lab. All methods block; errors come as the lab said them (`RemoteError` with its code)."""

    def __init__(self, name: str, plan: Plan, pid: int, launched: Launched | None = None) -> None:
        self.name = name
        self.plan = plan
        self.pid = pid  # of the lab's pid 1, as we see it
        self._launched = launched
        self._user_namespace = os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")

    @classmethod
    def up(cls, name: str, plan: Plan, report: Report = lambda what, seconds: None, *, leashed: bool = True) -> Self:
        """Build a lab and return when all of it is ready. `leashed`: it ends with this process, however that ends."""
        launched = launch(name, plan, leashed=leashed)
        try:
            with _connect(name) as connection:
                _ask(connection, report, op="wait")
            return cls(name, plan, _pid(name), launched)
        except NotUp as error:
            why = launched.why()
            launched.end()
            raise LabFailed(f"The lab did not start: {why}") from error
        except BaseException:
            launched.end()
            raise

    @classmethod
    def attach(cls, name: str) -> Self:
        """Find a lab that runs; raise `NotUp` if there is none."""
        with _connect(name) as connection:
            status = _ask(connection, op="status")
        return cls(name, Plan.from_json(status["plan"]), _pid(name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def status(self) -> dict[str, dict[str, Any]]:
        """Each role's host, pid inside the lab (None: does not run), readiness and last exit status."""
        services: dict[str, dict[str, Any]] = self._request(op="status")["services"]
        return services

    def start(self, role: str) -> None:
        """Start a service and wait until it is ready."""
        self._request(op="start", role=role)

    def stop(self, role: str) -> None:
        """End a service as its manager would: SIGTERM."""
        self._request(op="stop", role=role)

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a service; after SIGKILL it is gone on return."""
        self._request(op="kill", role=role, number=int(number))

    def restart(self, role: str) -> None:
        """Kill with SIGKILL and start again."""
        self.kill(role)
        self.start(role)

    def partition(self, site: str) -> None:
        """Cut a site off the internet: packets vanish."""
        self._request(op="partition", site=site)

    def heal(self, site: str) -> None:
        """Undo `partition`."""
        self._request(op="heal", site=site)

    def certificate(self, site: str, kind: CertificateKind) -> None:
        """Give a site's XMPP server a certificate of that kind and restart it."""
        self._request(op="certificate", site=site, kind=kind)

    def log(self, role: str, octets: int = 4000) -> str:
        """The end of a service's output."""
        text: str = self._request(op="log", role=role, octets=octets)
        return text

    def read(self, path: str | Path) -> str:
        """Read a file below the lab's directory, such as `site-a/member/member.toml`."""
        return self.run("internet", ["cat", str(RUN / path)]).stdout

    def enter(self, host: str, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` on `host` from outside."""
        user = ["--user", "--preserve-credentials"] if self._user_namespace else []
        # With its root: where all this runs in a chroot, that of its mount namespace is another.
        spaces = ["--mount", "--pid", "--ipc", "--uts", "--root", f"--wdns={RUN}"]
        # nsenter(1) forks to enter the pid namespace: whoever kills it means the command.
        inner = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{namespace(self.plan.host(host))}"]
        # `fed` is there at every site, and knows nothing of the federation that its caller is logged in to.
        environment = ["env", "--unset=FED_URL", "--unset=FED_TOKEN", f"PATH={PATH}:{ENVIRONMENT}/bin"]
        return ["nsenter", f"--target={self.pid}", *user, *spaces, *inner, *environment, *command]

    def run(
        self, host: str, command: Sequence[str], *, text: str | None = None, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end, with `text` as stdin.

        Raises `CommandTimedOut` after `timeout` seconds, and with `check` `LabFailed` for another exit status than 0.
        """
        line = self.enter(host, command)
        try:
            done = subprocess.run(line, input=text, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise CommandTimedOut(f"{' '.join(command)} at {host} took longer than {timeout:g} s.") from error
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise LabFailed(f"{' '.join(command)} at {host} failed with status {done.returncode}: {said}")
        return done

    def popen(self, host: str, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host; `options` are those of `subprocess.Popen`."""
        return subprocess.Popen(self.enter(host, command), text=True, **options)

    def down(self) -> None:
        """End the lab and return when nothing of it is left; a lab that is gone already is no error."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            self._request(op="down")
        except NotUp:
            pass  # it is on its way
        finally:
            gone = ended(descriptor, GONE_TIMEOUT)
            os.close(descriptor)
        if not gone:
            raise LabFailed(f"The lab's first process {self.pid} did not end.")
        self._wait_for_janitor()
        if self._launched is not None:
            self._launched.end()

    def _wait_for_janitor(self) -> None:
        deadline = time.monotonic() + GONE_TIMEOUT
        while left := cgroups.groups(self.name):
            if time.monotonic() > deadline:
                raise LabFailed(f"Control groups are left: {' '.join(map(str, left))}")
            time.sleep(LOOK_AGAIN)

    def _request(self, **request: Any) -> Any:
        with _connect(self.name) as connection:
            return _ask(connection, **request)


def ended(descriptor: int, timeout: float) -> bool:
    """Wait at most `timeout` seconds for the end of a process, given its pidfd; tell whether it has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _connect(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address(name))
        if peer_credentials(connection)[1] != os.getuid():
            raise PermissionError  # somebody else took the name
    except OSError as error:
        connection.close()
        raise NotUp(f"No lab {name!r} runs; start one with: fed demo up") from error
    return connection


def _pid(name: str) -> int:
    with _connect(name) as connection:  # a new one: only pid 1 itself has accepted since
        return peer_credentials(connection)[0]


def _ask(connection: socket.socket, report: Report = lambda what, seconds: None, **request: Any) -> Any:
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                if "event" in answer:
                    report(answer["event"], answer["seconds"])
                    continue
                if answer["ok"]:
                    return answer["result"]
                raise RemoteError(**answer["error"])
    except ConnectionError as error:
        raise NotUp("The lab went away.") from error
    raise NotUp("The lab went away.")
