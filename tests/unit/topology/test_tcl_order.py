"""The order of Tcl's hash tables, against the real `tclsh`."""

from __future__ import annotations

import random
import subprocess

from fedkit.topology.tcl_order import TclTable

SEQUENCES = 120


def steps(chance: random.Random) -> list[tuple[str, str]]:
    """Inserts and deletes of names such as links have."""
    there: list[str] = []
    done = []
    for _ in range(chance.randrange(1, 260)):
        if there and chance.random() < 0.25:
            key = there.pop(chance.randrange(len(there)))
            done.append(("del", key))
        else:
            prefix = chance.choice(["link", "lan", "tblink-l", "tblan-lan", "x", "big-long-name-"])
            key = f"{prefix}{chance.randrange(400)}"
            if key not in there:
                there.append(key)
            done.append(("add", key))
    return done


def test_keys_are_listed_as_tcl_lists_them() -> None:
    chance = random.Random(4)
    sequences = [steps(chance) for _ in range(SEQUENCES)]
    script = []
    for number, sequence in enumerate(sequences):
        script += [f"set t{number}({key}) 1" if what == "add" else f"unset t{number}({key})" for what, key in sequence]
        script.append(f"puts [array names t{number}]")
    told = subprocess.run(["tclsh"], input="\n".join(script), capture_output=True, text=True, check=True)
    for sequence, listing in zip(sequences, told.stdout.splitlines(), strict=True):
        table = TclTable()
        for what, key in sequence:
            (table.add if what == "add" else table.remove)(key)
        assert list(table) == listing.split()


def test_the_seeds_example_lists_lan0_between_the_links() -> None:
    table = TclTable()
    for name in ("link0", "link1", "lan0"):
        table.add(name)
    assert list(table) == ["link0", "lan0", "link1"]
