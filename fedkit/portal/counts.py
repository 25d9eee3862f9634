"""What became of the frames of one crossing at one end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counts:
    """Frames (super-frames count once) and octets since the start."""

    out_frames: int = 0
    out_octets: int = 0
    in_frames: int = 0
    in_octets: int = 0
    dropped: int = 0  # the line was full, or there was none
    lost: int = 0  # because the line is to lose some; segments of super-frames count each
    looping: int = 0  # kept back while there was a second way between the two networks
    refused: int = 0  # frames of the peer that no kernel should see, or that it did not take
