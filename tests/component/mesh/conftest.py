"""Two real XMPP servers, shared by the tests of a module; each test leaves them running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prosody import Prosody, prosody_pair


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Prosody, Prosody]]:
    with prosody_pair(tmp_path, "evil") as pair:
        yield pair
