"""The Rendezvous's tables, step by step; only ever appended (fedkit/migrations.py)."""
