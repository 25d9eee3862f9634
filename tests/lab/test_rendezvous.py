"""The list of members with real servers between: who is there, who has gone, and what is left without the Rendezvous."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, until

pytestmark = pytest.mark.lab

RENDEZVOUS = "site-a/rendezvous"
FAR = "site-b"  # not the Rendezvous's own site
CLOSED = "site-c"  # lets nothing in


@pytest.fixture(scope="module")
def people(lab: Lab) -> dict[str, Person]:
    """Somebody at each site."""
    return {site.name: Person(lab, site.name, "rupert") for site in lab.plan.sites}


def alive(person: Person) -> set[str]:
    """Names of the members that are alive, as a person is told."""
    return {member["name"] for member in person.ask("members") if member["alive"]}


def everybody(lab: Lab) -> set[str]:
    """Names of all members."""
    return {site.domain for site in lab.plan.sites}


def warning(person: Person) -> str:
    """What a person is told about the list as a whole; empty where it is current."""
    return person.fed_status("members").stderr.strip()


def sees(person: Person, names: set[str]) -> Any:
    """Wait until a person sees exactly these members alive."""
    return until(lambda: alive(person) == names, f"{person.url} sees {', '.join(sorted(names))}")


def test_all_members_see_one_another(lab: Lab, people: dict[str, Person]) -> None:
    for person in people.values():
        sees(person, everybody(lab))
        until(lambda who=person: not warning(who), "the list is current")  # type: ignore[misc]


def test_whoever_stops_is_gone_for_all_and_comes_back(lab: Lab, people: dict[str, Person]) -> None:
    gone = lab.plan.site(CLOSED).domain
    lab.stop(f"{CLOSED}/member")
    try:
        sees(people[FAR], everybody(lab) - {gone})
    finally:
        lab.start(f"{CLOSED}/member")
    sees(people[FAR], everybody(lab))
    sees(people[CLOSED], everybody(lab))


def test_a_rendezvous_killed_comes_back_with_its_list(lab: Lab, people: dict[str, Person]) -> None:
    lab.restart(RENDEZVOUS)
    lab.restart(f"{FAR}/member")  # must ask for the list
    sees(people[FAR], everybody(lab))
    until(lambda: not warning(people[FAR]), "the list is current")


def test_without_the_rendezvous_the_last_known_list_serves(lab: Lab, people: dict[str, Person]) -> None:
    lab.kill(RENDEZVOUS)
    try:
        lab.restart(f"{FAR}/member")
        told = until(lambda: warning(people[FAR]), "the member says that its list may be old")
        assert "working with the list of" in told
        assert alive(people[FAR]) == everybody(lab)
        until(lambda: "not reachable" in warning(people[CLOSED]), "a member that ran on notices, too")
        assert alive(people[CLOSED]) == everybody(lab)
    finally:
        lab.start(RENDEZVOUS)
    for person in people.values():
        until(lambda who=person: not warning(who), "the list is current again")  # type: ignore[misc]
        sees(person, everybody(lab))
