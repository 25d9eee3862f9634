"""Laws of what the kit changes in files: undoing leads back octet by octet, and twice is once, whatever was there."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.node.kit.doing import Change, carry_out, undo
from fedkit.node.kit.errors import KitError, StrangeLink
from fedkit.node.kit.files import SCRATCH, Block, Folder, Records, Text
from fedkit.node.kit.journal import Entry, Journal
from fedkit.node.kit.plan import KINDS
from fedkit.node.kit.system import System

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the kit waits for the disk at each step
UID, GID = os.getuid(), os.getgid()
PERSON = 20_000  # who is not root
NAMES = st.sampled_from(["rosa", "bob", "root", "x"])
LINES = st.lists(st.builds(lambda name, rest: f"{name}:{rest}", NAMES, st.text("ab: é", max_size=4)), max_size=4)
TEXTS = st.one_of(st.text(max_size=40), LINES.map("\n".join), LINES.map(lambda lines: "".join(f"{x}\n" for x in lines)))
PATHS = st.sampled_from(["/etc/passwd", "/etc/hosts", "/etc/other"])
CHANGES = st.one_of(
    st.builds(Records, PATHS, st.lists(st.builds(lambda n: f"{n}:1:2", NAMES), max_size=3, unique=True)),
    st.builds(Block, PATHS, st.sampled_from(["one", "two"]), st.lists(st.text("abc ", max_size=5), max_size=3)),
    st.builds(Text, PATHS, st.text(max_size=20), st.sampled_from([0o600, 0o644]), st.just(UID), st.just(GID)),
    st.builds(Folder, st.sampled_from(["/home", "/home/rosa", "/etc"]), st.just(0o755), st.just(UID), st.just(GID)),
)
PLANS = st.lists(CHANGES, max_size=5, unique_by=lambda change: change.path).map(
    lambda changes: sorted(changes, key=lambda change: change.path)
)


PLACE: list[str] = []


@pytest.fixture(autouse=True, scope="module")
def _place() -> Iterator[None]:
    """Where the machines of all examples are, also those of examples that fail."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        PLACE.append(folder)
        yield
        PLACE.pop()


class Machine:
    """A root file system with these files."""

    def __init__(self, files: dict[str, str]) -> None:
        self.root = Path(tempfile.mkdtemp(dir=PLACE[-1]))
        for folder in ("etc", "var/lib"):
            (self.root / folder).mkdir(parents=True)
        for path, text in files.items():
            (self.root / path.lstrip("/")).write_bytes(text.encode("utf-8", "surrogatepass"))
        self.said: list[str] = []
        self.system = System(self.root, say=self.said.append)

    def journal(self) -> Journal:
        """Its journal."""
        return Journal(self.system.path(self.system.state))

    def apply(self, wanted: Sequence[Change]) -> list[str]:
        """As the program does."""
        journal = self.journal()
        with journal.open():
            return carry_out(self.system, journal, wanted, KINDS)

    def undo(self) -> list[str]:
        """As the program does."""
        journal = self.journal()
        with journal.open():
            return undo(self.system, journal, KINDS)

    def tree(self) -> dict[str, Any]:
        """All of it."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            info = path.stat()
            content = path.read_bytes() if path.is_file() else None
            found[str(path)] = (stat.S_IMODE(info.st_mode), info.st_uid, content)
        return found

    def files(self) -> dict[str, Any]:
        """The same without the journal."""
        return {path: said for path, said in self.tree().items() if "federation" not in path}

    def clear(self) -> None:
        """Gone."""
        shutil.rmtree(self.root)


@given(st.dictionaries(PATHS, TEXTS), PLANS)
def test_undoing_what_was_done_leads_back(files: dict[str, str], wanted: list[Change]) -> None:
    machine = Machine(files)
    before = machine.tree()
    machine.apply(wanted)
    assert machine.undo() == []
    assert machine.tree() == before
    assert machine.undo() == []
    assert machine.tree() == before
    machine.clear()


@given(st.dictionaries(PATHS, TEXTS), PLANS)
def test_twice_is_once(files: dict[str, str], wanted: list[Change]) -> None:
    machine = Machine(files)
    machine.apply(wanted)
    once = machine.tree()
    machine.apply(wanted)
    assert machine.tree() == once
    machine.clear()


@given(st.dictionaries(PATHS, TEXTS), PLANS, PLANS)
def test_what_is_wanted_later_is_as_if_it_had_been_wanted_at_once(
    files: dict[str, str], first: list[Change], then: list[Change]
) -> None:
    machine, other = Machine(files), Machine(files)
    before = machine.tree()
    machine.apply(first)
    machine.apply(then)
    other.apply(then)
    shown = {path.replace(str(machine.root), ""): said for path, said in machine.files().items()}
    assert shown == {path.replace(str(other.root), ""): said for path, said in other.files().items()}
    machine.undo()
    assert machine.tree() == before
    machine.clear()
    other.clear()


@given(st.dictionaries(PATHS, TEXTS), PLANS, st.integers(0, 200))
def test_a_journal_that_was_cut_off_says_enough(files: dict[str, str], wanted: list[Change], cut: int) -> None:
    """As after a crash of the machine: the last octets of the journal are lost, and what they told of was not begun."""
    machine = Machine(files)
    before = machine.tree()
    journal = machine.journal()
    with journal.open():
        for change in wanted[:-1]:
            carry_out(machine.system, journal, wanted[: wanted.index(change) + 1], KINDS)
        if wanted and wanted[-1].key not in journal.entries:
            entry = Entry(wanted[-1].key, type(wanted[-1]).__name__, {}, None)
            size = journal._file.stat().st_size if journal._file.exists() else 0
            journal.record(entry)
            os.truncate(journal._file, max(size + 1, journal._file.stat().st_size - 2 - cut))
            del journal.entries[entry.key]
            journal.entries["kept"] = entry
    machine.undo()
    assert machine.files() == {path: said for path, said in before.items() if "federation" not in path}
    machine.clear()


def test_others_edits_survive(tmp_path: Path) -> None:
    machine = Machine({"/etc/hosts": "127.0.0.1 localhost", "/etc/passwd": "root:x:0:\n"})
    machine.apply([Block("/etc/hosts", "mine", ["10.1.1.2 a"]), Records("/etc/passwd", ["rosa:x:1:"])])
    for name, line in (("hosts", "10.9.9.9 other\n"), ("passwd", "late:x:5:\n")):
        with (machine.root / "etc" / name).open("a") as file:
            file.write(line)
    assert machine.undo() == []
    assert (machine.root / "etc/hosts").read_text() == "127.0.0.1 localhost\n10.9.9.9 other\n"
    assert (machine.root / "etc/passwd").read_text() == "root:x:0:\nlate:x:5:\n"
    machine.clear()


def test_an_account_of_the_image_is_not_removed() -> None:
    machine = Machine({"/etc/passwd": "rosa:x:7:7::/:\n"})
    machine.apply([Records("/etc/passwd", ["rosa:x:1:", "bob:x:2:"])])
    assert (machine.root / "etc/passwd").read_text() == "rosa:x:7:7::/:\nbob:x:2:\n"
    machine.undo()
    assert (machine.root / "etc/passwd").read_text() == "rosa:x:7:7::/:\n"
    machine.clear()


def test_what_fails_hinders_nothing_else_and_is_told() -> None:
    machine = Machine({})
    failed = machine.apply([Text("/nowhere/file", "x"), Text("/etc/file", "y", uid=UID, gid=GID)])
    assert len(failed) == 1
    assert "/nowhere/file" in failed[0]
    assert (machine.root / "etc/file").read_text() == "y"
    assert machine.undo() == []
    machine.clear()


def test_a_link_leads_to_what_is_changed_and_stays(tmp_path: Path) -> None:
    machine = Machine({"/etc/real": "x\n"})
    (machine.root / "etc/hosts").symlink_to("real")
    before = machine.tree()
    machine.apply([Block("/etc/hosts", "mine", ["y"])])
    assert (machine.root / "etc/hosts").is_symlink()
    assert "y\n" in (machine.root / "etc/real").read_text()
    machine.undo()
    assert machine.tree() == before
    assert not list(machine.root.rglob(f"*{SCRATCH}"))
    machine.clear()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_no_link_of_a_persons_leads_the_kit_anywhere() -> None:
    machine = Machine({"/etc/shadow": "secret\n"})
    keys = [Folder("/home/rosa", 0o755, PERSON, PERSON), Folder("/home/rosa/.ssh", 0o700, PERSON, PERSON)]
    for folder in ("home", "etc/conf", "etc/conf/keep"):
        (machine.root / folder).mkdir()
    machine.apply(keys)
    ssh = machine.root / "home/rosa/.ssh"
    (ssh / "authorized_keys").symlink_to(machine.root / "etc/shadow")
    os.lchown(ssh / "authorized_keys", PERSON, PERSON)
    failed = machine.apply([*keys, Text("/home/rosa/.ssh/authorized_keys", "ours\n", 0o600, PERSON, PERSON)])
    assert [problem for problem in failed if StrangeLink.code in problem] == failed != []
    assert (machine.root / "etc/shadow").read_text() == "secret\n"
    shutil.rmtree(ssh)
    ssh.symlink_to(machine.root / "etc/conf")
    os.lchown(ssh, PERSON, PERSON)
    assert machine.apply(keys)
    assert (machine.root / "etc/conf").stat().st_uid == 0
    assert machine.undo()
    assert (machine.root / "etc/conf/keep").exists()
    machine.clear()


def test_who_waited_for_a_journal_that_is_gone_begins_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, wait = tmp_path / "state", fcntl.flock
    others = iter([None])

    def flock(descriptor: int, how: int) -> None:
        for _ in others:  # whoever held it had nothing left to undo
            shutil.rmtree(folder)
        wait(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    journal, again = Journal(folder), Journal(folder)
    with journal.open():
        journal.record(Entry("it", "Text", {}, None))
        again.read()
    assert list(again.entries) == ["it"]


def test_the_agent_of_one_conf_is_the_same_in_each_run(tmp_path: Path) -> None:
    conf = tmp_path / "client.conf"
    hidden = "".join(f"Hide: {name}\n" for name in ("a", "b", "c", "d", "e"))
    conf.write_text(f"Name: x\n{hidden}ControlKey: k\nListen: 192.0.2.1:16505\n")
    program = (
        "from pathlib import Path; from fedkit.node.kit import conf, journal, plan, system; s = system.System();"
        f"print(plan.plan(conf.read(Path({str(conf)!r}).read_text()), s, journal.Journal(Path('/none')), 'c')[-1])"
    )
    seeds = [{**os.environ, "PYTHONHASHSEED": seed} for seed in "1234"]
    runs = [subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True) for env in seeds]
    assert b"agent" in runs[0].stdout
    assert len({run.stdout for run in runs}) == 1


def test_errors_name_their_code() -> None:
    with pytest.raises(KitError, match=r"kit\.command_failed"):
        System().run("no-such-program-at-all")
