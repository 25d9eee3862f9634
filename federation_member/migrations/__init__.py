"""Revisions of the member's tables, run at start by `fedkit.migrations`; each room with tables has its own chain."""
