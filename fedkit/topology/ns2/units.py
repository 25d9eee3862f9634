"""Rates, delays and losses as the ns2 dialect writes them (Emulab's parse_bw, parse_delay; its documented limits)."""

from __future__ import annotations

import math
import re

SMALLEST_RATE, LARGEST_RATE = 10, 10_000_000  # kb/s
SMALLEST_DELAY = 2  # ms; what a delay node can do
SMALLEST_LOSS = 0.000005
BEST_EFFORT = -1  # `~`
ANY = 0  # `*`: the mapper chooses

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_RATE = re.compile(_NUMBER + r"([A-Za-z]*)\Z")
_RATE_UNITS = {"": 0.001, "b": 0.001, "bps": 0.001}
_RATE_UNITS |= {prefix + rest: 1.0 for prefix in "kK" for rest in ("", "b", "bps")}
_RATE_UNITS |= {"M" + rest: 1e3 for rest in ("", "b", "bps")} | {"G" + rest: 1e6 for rest in ("", "b", "bps")}
_DELAY_UNITS = {"": 1000.0, "s": 1000.0, "ms": 1.0, "ns": 0.001}  # ns: Emulab divides by 1000, so it really is µs


class BadUnit(ValueError):
    """A text that is no rate, delay or loss, or one out of range; the message says what to write."""


def rate(text: str) -> int:
    """kb/s of a rate such as `100Mb`; without a unit it is bits/s. `*` is `ANY`, `~` is `BEST_EFFORT`."""
    if text in ("*", "~"):
        return ANY if text == "*" else BEST_EFFORT
    match = _RATE.match(text)
    if match is None or match[2] not in _RATE_UNITS:
        raise BadUnit(f"{_short(text)} is no bandwidth; write a number with b, kb, Mb or Gb, such as 100Mb.")
    value = float(match[1]) * _RATE_UNITS[match[2]] + 1e-9
    if not SMALLEST_RATE <= value < LARGEST_RATE + 1:
        raise BadUnit(f"A bandwidth is 10kb to 10Gb; {_short(text)} is not.")
    return int(value)


def delay(text: str) -> int:
    """Milliseconds of a delay such as `10ms`; without a unit it is seconds. Part of a millisecond is cut off."""
    match = _RATE.match(text)
    if match is None or match[2] not in _DELAY_UNITS:
        raise BadUnit(f"{_short(text)} is no delay; write a number with s, ms or ns, such as 10ms.")
    value = float(match[1]) * _DELAY_UNITS[match[2]]
    if value != 0 and not SMALLEST_DELAY <= value < math.inf:
        raise BadUnit(f"A delay is 0 or at least {SMALLEST_DELAY}ms; {_short(text)} is not.")
    return int(value + 1e-9)


def loss(text: str) -> float:
    """A loss rate: 0, or 0.000005 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value != 0 and not SMALLEST_LOSS <= value <= 1:
        raise BadUnit(f"A loss rate is 0, or {SMALLEST_LOSS:f} to 1; {_short(text)} is not.")
    return value


def one_way(loss_rate: float) -> float:
    """The loss of each of two halves that together lose `loss_rate`."""
    return 1 - math.sqrt(1 - loss_rate)


def seconds(text: str) -> float:
    """An event's time: seconds, or such as `1h20m3s`."""
    match = re.fullmatch(rf"(?:(\d+)h)?(?:(\d+)m)?(?:{_NUMBER}s)?", text) if text else None
    if match and any(match.groups()):
        hours, minutes, rest = (float(part or 0) for part in match.groups())
        value = hours * 3600 + minutes * 60 + rest
    else:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
    if not 0 <= value < 1e9:
        raise BadUnit(f"{_short(text)} is no time; write seconds, or such as 1h20m3s.")
    return value


def _short(text: str) -> str:
    return repr(text[:40])
