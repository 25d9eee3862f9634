"""Where a node may have shares mounted: as its services say, unless parties meet in it.

A share that hangs holds up whoever looks at it. Between parties that would be a way for one to hold up another's.
"""

from __future__ import annotations

from fedkit.node.kit import conf
from fedkit.node.kit.errors import BadConf
from fedkit.protocol.segments import SegmentSpec


def mounts(spec: SegmentSpec, name: str) -> tuple[str, ...]:
    """The folders; none for settings that cannot be read, which the node itself will say."""
    if spec.apart.get(name):
        return ()
    try:
        return tuple(dict.fromkeys(share.path for share in conf.read(spec.settings.get(name, "")).shares))
    except BadConf:
        return ()
