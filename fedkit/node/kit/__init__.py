"""The federation kit on an experiment's node: one small program that needs Python's standard library and nothing else.

    client.conf ─► conf.py ─► plan.py: a list of changes ─► doing.py: journal first, then the change ─► undo, in reverse

It runs as root, once or again: what holds already is left alone, what is asked for no longer is undone. Whatever it will change is in
the journal, with what was there before, before it is changed; so `undo` leads back from wherever it was cut off.
"""
