"""Portals: machines that join a testbed's networks to another's, frame by frame."""
