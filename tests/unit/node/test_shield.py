"""A program behind the shield is told that it gave up its rights, and has not; all else is as ever."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from fedkit.node.kit import shield

ASKS = """
import ctypes, os
from fedkit.node.kit import shield
shield.put_on()
before = os.getuid(), os.getgid(), os.getgroups()
os.setregid(12345, 12345)
os.setgroups([12345])
os.setreuid(12345, 12345)
print(before == (os.getuid(), os.getgid(), os.getgroups()), ctypes.CDLL(None).capset(None, None))
try:
    os.kill(0, 99)
except OSError:
    print("refused")
"""


@pytest.mark.skipif(not shield.is_possible(), reason="its numbers of system calls are not known")
def test_it_says_done_to_four_requests_and_passes_all_others_on() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True 0\nrefused\n"


@pytest.mark.parametrize("machine", sorted(shield.CALLS))
def test_calls_of_another_architecture_are_passed_on(machine: str) -> None:
    program = shield.instructions(machine)
    lines = [struct.unpack("HBBI", program[start : start + 8]) for start in range(0, len(program), 8)]
    compare, answer = shield.JUMP_IF_EQUAL, shield.RETURN
    assert [code for code, *_ in lines] == [shield.LOAD, compare, shield.LOAD, *[compare] * 4, answer, answer]
    assert lines[1][2] == 5  # of another architecture: over the load and the four comparisons
    assert [line[1] for line in lines[3:7]] == [4, 3, 2, 1]  # one of the calls: behind `allowed`
    assert [line[3] for line in lines[7:]] == [shield.ALLOWED, shield.DONE]


def test_it_is_needed_where_the_right_is_missing() -> None:
    with open("/proc/self/status") as status:
        rights = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    assert shield.is_needed() is not bool(rights & 1 << shield.CAP_SYS_ADMIN)
