"""A program behind the shield is told that it gave up its rights, and has not; all else is as ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fedkit.node.kit import shield

ASKS = """
import ctypes, os
from fedkit.node.kit import shield
shield.put_on()
os.setreuid(12345, 12345)
print(os.getuid() != 12345, ctypes.CDLL(None).capset(None, None), os.getppid() > 0)
try:
    os.kill(0, 99)
except OSError:
    print("refused")
"""


@pytest.mark.skipif(not shield.is_possible(), reason="its numbers of system calls are not known")
def test_it_says_done_to_two_requests_and_passes_all_others_on() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True 0 True\nrefused\n"


@pytest.mark.parametrize("machine", sorted(shield.CALLS))
def test_another_architectures_calls_are_passed_on(machine: str) -> None:
    """A jump leads to `allowed` for them, and to the end for the two calls."""
    lines = [shield.instructions(machine)[start : start + 8] for start in range(0, 8 * 7, 8)]
    assert len(shield.instructions(machine)) == 8 * 7
    assert [line[3] for line in lines[1:2]] == [3]  # jf: over the load and the two comparisons
    assert [line[2] for line in lines[3:5]] == [2, 1]  # jt: behind `allowed`


def test_it_is_needed_where_the_right_is_missing() -> None:
    with open("/proc/self/status") as status:
        rights = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    assert shield.is_needed() is not bool(rights & 1 << 21)
    assert os.uname().machine in shield.CALLS or not shield.is_possible()
