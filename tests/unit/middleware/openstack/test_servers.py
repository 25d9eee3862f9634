"""What a server's state means, and which of several servers counts."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.contract import Status
from federation_member.middleware.openstack.servers import Server, owned, the_one
from fedkit.protocol.lending import Power

KEY = str(uuid.UUID(int=7))
STATES = ["ACTIVE", "BUILD", "ERROR", "SHUTOFF", "PAUSED", "DELETED", "SOFT_DELETED", "REBOOT", "NEW_IN_2030"]


def server(status: str = "ACTIVE", **given: Any) -> Server:
    return Server.model_validate({"id": "1", "name": "box", "status": status} | given)


@pytest.mark.parametrize(
    ("state", "status", "power"),
    [
        ("ACTIVE", Status.RUNNING, Power.RUNNING),
        ("SHUTOFF", Status.RUNNING, Power.STOPPED),
        ("PAUSED", Status.RUNNING, Power.PAUSED),
        ("SUSPENDED", Status.RUNNING, Power.PAUSED),
        ("SHELVED_OFFLOADED", Status.RUNNING, Power.STOPPED),
        ("HARD_REBOOT", Status.RUNNING, Power.RUNNING),
        ("BUILD", Status.CREATING, Power.RUNNING),
        ("ERROR", Status.FAILED, Power.RUNNING),
    ],
)
def test_states(state: str, status: Status, power: Power) -> None:
    told = owned(KEY, server(state))
    assert (told.status, told.instance.power) == (status, power)
    assert (told.reason == "") == (status is Status.RUNNING)


def test_a_server_that_is_being_deleted_has_failed() -> None:
    assert owned(KEY, server("ACTIVE", **{"OS-EXT-STS:task_state": "deleting"})).status is Status.FAILED


def test_the_faults_words_are_the_reason() -> None:
    assert "valid host" in owned(KEY, server("ERROR", fault={"message": "No valid host was found. "})).reason


@given(st.lists(st.tuples(st.sampled_from(STATES), st.sampled_from(["1", "2"]), st.uuids()), max_size=5), st.randoms())
def test_the_same_one_counts_however_they_are_listed(several: list[tuple[str, str, uuid.UUID]], chance: Any) -> None:
    servers = [server(status, created=created, id=str(name)) for status, created, name in several]
    chosen = the_one(servers)
    chance.shuffle(servers)
    assert the_one(servers) == chosen
    if chosen is not None and chosen.status == "ERROR":
        assert all(one.status == "ERROR" or one.is_gone for one in servers)
    assert chosen is None or not chosen.is_gone
