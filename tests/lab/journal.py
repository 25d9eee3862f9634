"""What a service says about what it refuses."""

from __future__ import annotations

import json
from typing import Any

from deploy.lab.client import Lab
from deploy.lab.person import until

WHOLE_LOG = 1 << 20  # octets


class Journal:
    """What a service has logged since now."""

    def __init__(self, lab: Lab, role: str) -> None:
        self._lab, self._role = lab, role
        self._begin = len(lab.log(role, WHOLE_LOG))

    def refusals(self, code: str, operation: str = "") -> list[dict[str, Any]]:
        """The lines with that code."""
        lines = self._lab.log(self._role, WHOLE_LOG)[self._begin :].splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [e for e in events if e.get("code") == code and e.get("operation", "") in ("", operation)]

    def until(self, code: str, operation: str = "") -> None:
        """Wait for a line with that code."""
        until(lambda: self.refusals(code, operation), f"{self._role} logs {code}")
