"""Strangers are counted, tenants are not shut out."""

from __future__ import annotations

from reverse_tunnel.config import LimitsSection
from reverse_tunnel.gate import Gate, source_of

LIMITS = LimitsSection(logins_at_once=4, logins_per_address=2, failures_per_minute=3)


class Timer:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_address_cannot_take_every_place() -> None:
    gate = Gate(LIMITS, Timer())
    assert gate.arrive("192.0.2.1")
    assert gate.arrive("192.0.2.1")
    assert not gate.arrive("192.0.2.1")
    assert gate.arrive("192.0.2.2")
    gate.give_up("192.0.2.1")
    assert gate.arrive("192.0.2.1")


def test_all_addresses_together_have_a_limit() -> None:
    gate = Gate(LIMITS, Timer())
    assert [gate.arrive(f"192.0.2.{i}") for i in range(6)] == [True] * 4 + [False] * 2
    gate.log_in("192.0.2.0")
    assert gate.arrive("192.0.2.9")


def test_an_address_that_only_fails_is_not_heard_for_a_minute() -> None:
    timer = Timer()
    gate = Gate(LIMITS, timer)
    for _ in range(3):
        assert gate.arrive("192.0.2.1")
        gate.fail("192.0.2.1")
        gate.give_up("192.0.2.1")
    assert not gate.arrive("192.0.2.1")
    assert gate.arrive("192.0.2.2")
    timer.now += 61
    assert gate.arrive("192.0.2.1")


def test_an_address_that_holds_a_tunnel_is_never_shut_out() -> None:
    gate = Gate(LIMITS, Timer())
    gate.arrive("192.0.2.1")
    gate.log_in("192.0.2.1")
    for _ in range(10):
        gate.fail("192.0.2.1")
    assert gate.arrive("192.0.2.1")
    gate.leave("192.0.2.1")
    gate.give_up("192.0.2.1")
    assert not gate.arrive("192.0.2.1")


def test_memory_of_failures_is_bounded() -> None:
    gate = Gate(LIMITS, Timer())
    for i in range(30_000):
        gate.fail(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
    assert len(gate._failures) == 10_000


def test_one_ipv6_host_is_one_address() -> None:
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1")
    assert source_of("2001:db8:0:1::1") != source_of("2001:db8::1")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2")
