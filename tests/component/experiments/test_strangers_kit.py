"""docs/federation-kit.md shows a complete kit: exactly that text is installed, and joins two testbeds of real machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation_member.experiments.model import State
from federation_member.middleware.containers import ContainersMiddleware
from fedkit.protocol.segments import Operation
from fedkit.services.errors import UnknownService
from tests.component.experiments.test_real_machines import MAKING, is_in, lender
from tests.component.middleware.conftest import base, site
from tests.component.middleware.contract import PUBLIC_KEY, eventually
from tests.component.middleware.place import ContainersSite, lacks_to_carry
from tests.support.experiments import line
from tests.support.federation import USER, Federation, Member
from tests.support.strangers import installed

__all__ = ["base", "site"]

LOOK = "cat /etc/note; ping -c 2 -w 5 {} | grep received; hostname"
SEEN = "hello\n2 packets transmitted, 2 packets received, 0% packet loss\n{}\n"
pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]


@pytest.fixture
def _kit(tmp_path: Path) -> Iterator[None]:
    """The stranger's package."""
    (folder := tmp_path / "stranger").mkdir()
    with installed("docs/federation-kit.md", "A kit of your own", "ssh_pipe", folder):
        yield


async def says(member: Member, wanted: str, name: str, other: str) -> bool:
    """Whether a node has its note, and frames cross to the other and back."""
    done = await member.experiments.operate(USER, wanted, Operation.RUN, [name], command=LOOK.format(other))
    return done.output.get(name) == SEEN.format(name)


@pytest.mark.usefixtures("_kit")
@pytest.mark.parametrize("hosted", [True, False])
async def test_another_kit_joins_testbeds(
    site: ContainersSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hosted: bool
) -> None:
    """Whether the middleware makes a segment as a whole, or lends its machines and networks."""
    monkeypatch.setattr(ContainersMiddleware, "hosts_segments", lambda _self: hosted)
    if (lacking := lacks_to_carry()) is not None:
        pytest.skip(lacking)
    (folder := tmp_path / "tunnel").mkdir()
    async with Federation(tmp_path) as world, lender(world, site, folder) as a:
        members = {"left": "a.test", "right": "a.test"}
        new = line("left", "right", members=members, ssh_keys=[PUBLIC_KEY], kit="ssh-pipe")
        with pytest.raises(UnknownService, match="there are note"):
            await a.experiments.create(USER, new.model_copy(update={"services": ["userconfig:left:right:project=x"]}))
        new = new.model_copy(update={"services": ["note:left:right:text=hello"]})
        made, _grant, _key = await a.experiments.create(USER, new)
        wanted = made.experiment.id
        assert made.experiment.kit == "ssh-pipe"
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)
        await eventually(lambda: says(a, wanted, "n0", "n1"), MAKING)
        await eventually(lambda: says(a, wanted, "n1", "n0"), MAKING)
        await a.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []
