"""The portal's program as one file that a bare machine can unpack and run."""
