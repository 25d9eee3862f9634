"""What can be wrong with a segment."""

from __future__ import annotations

from fedkit.errors import InputError

NOT_MADE = "segment.not_made"
"""Code of a part that its cloud was making for too long."""


class UnusableSegment(InputError):
    """A piece of an experiment that cannot be run as it is described."""

    code = "segment.unusable"
