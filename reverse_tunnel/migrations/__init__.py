"""Revisions of the reverse tunnel server's tables, run at start by `fedkit/migrations.py`."""
