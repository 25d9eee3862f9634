"""What can be wrong with a segment."""

from __future__ import annotations

from fedkit.errors import InputError


class UnusableSegment(InputError):
    """A piece of an experiment that cannot be run as it is described."""

    code = "segment.unusable"
