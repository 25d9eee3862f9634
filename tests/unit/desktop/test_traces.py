"""What an attachment leaves on a machine is found by whoever comes next, unless its process lives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedkit.desktop.traces import abandoned, end, listed, trace

LIVE = """
import sys, time
from pathlib import Path
from fedkit.desktop.traces import trace
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with trace("1-1-1-1-1", {"experiment": "e"}, Path(sys.argv[1])):
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Where the folders are."""
    return tmp_path / "desktop"


def live(base: Path) -> subprocess.Popen[str]:
    """A process that is attached."""
    process = subprocess.Popen([sys.executable, "-c", LIVE, str(base)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def test_nothing_is_left_of_one_that_ended(base: Path) -> None:
    with trace("0-0-0-0-0", {"experiment": "e"}, base) as one:
        assert [found.about["experiment"] for found in listed(base)] == ["e"]
        assert oct(one.folder.stat().st_mode & 0o777) == "0o700"
    assert not base.exists()


def test_one_that_lives_is_not_abandoned_and_ends_when_it_is_told(base: Path) -> None:
    with live(base) as process:
        with abandoned(base) as left:
            assert left == []
        end(listed(base)[0])
        assert process.wait() == 0
    assert not base.exists()


def test_one_that_was_killed_is_abandoned_and_can_be_cleaned(base: Path) -> None:
    with live(base) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    end(listed(base)[0])  # there is nobody to tell
    with abandoned(base) as left:
        assert [one.about["experiment"] for one in left] == ["e"]
        with abandoned(base) as others:
            assert others == []  # somebody is at it
        left[0].clean()
    assert not base.exists()


def test_one_that_was_killed_before_it_said_anything_can_be_cleaned(base: Path) -> None:
    (base / "1-1-1-1-1").mkdir(parents=True)
    with abandoned(base) as left:
        assert [dict(one.about) for one in left] == [{}]
        left[0].clean()
    assert not base.exists()


def test_another_process_with_the_number_of_a_dead_one_is_left_alone(base: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        with trace("2-2-2-2-2", {}, base) as one:
            (one.folder / "about.json").write_text(json.dumps({"process": other.pid}))
            found = listed(base)[0]
            ending = threading.Thread(target=end, args=[found])
            ending.start()
        ending.join()
        assert other.poll() is None
        other.kill()
