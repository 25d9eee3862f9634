"""What a site's operator does about its policy: write another one and have it taken."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from signal import SIGHUP
from typing import Any

from deploy.lab.client import Lab
from deploy.lab.components import POLICY, to_toml
from deploy.lab.person import until
from deploy.lab.places import RUN
from federation_member.access.hours import DAYS

WHOLE_LOG = 1 << 20  # octets
IN_FORCE = "policy_in_force"


@contextmanager
def policy(lab: Lab, site: str, *rules: Mapping[str, Any]) -> Iterator[None]:
    """Have a site lend by these rules, in which each site's name stands for its fedid; as before at the end."""
    before = lab.read(_path(site))
    principals = tomllib.loads(before)["principals"]
    _put(lab, site, to_toml({"principals": principals, "rule": list(rules)}))
    try:
        yield
    finally:
        _put(lab, site, before)


def fedid(lab: Lab, site: str) -> str:
    """The fedid of a site's member."""
    return str(tomllib.loads(lab.read(_path(site)))["principals"][site])


def days_about_now(first: int, last: int) -> str:
    """Days as policies write them, counted from today in UTC: `-1, 1` are yesterday, today and tomorrow."""
    today = datetime.now(UTC).weekday()
    return f"{DAYS[(today + first) % 7]}-{DAYS[(today + last) % 7]}"


def _path(site: str) -> str:
    return f"{site}/member/{POLICY}"


def _put(lab: Lab, site: str, text: str) -> None:
    role = f"{site}/member"
    begin = len(lab.log(role, WHOLE_LOG))
    lab.run("internet", ["tee", str(RUN / _path(site))], text=text)
    lab.kill(role, SIGHUP)
    until(lambda: IN_FORCE in lab.log(role, WHOLE_LOG)[begin:], f"{site} has taken its policy")
