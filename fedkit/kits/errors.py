"""What can be wrong with the kit that somebody asks for."""

from __future__ import annotations

from fedkit.errors import InputError


class UnknownKit(InputError):
    """A federation kit that is not installed."""

    code = "kits.unknown"
