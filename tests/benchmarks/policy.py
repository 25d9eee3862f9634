"""The ABAC engine: `python -m tests.benchmarks.policy`.

Cold is what a member does with credentials that it has never seen: read each text, verify its signature, prove; every cache is emptied
before. Warm is the same query again. The reference in each run is a naive prover, which computes all memberships until nothing is added.

The hundred thousand are built as a reader returns them (statement, key, term, octets as long as a signed text), without making the
signatures, which would take a minute and measure nothing; memory is the difference of the process's resident set. Among them `same` asks
again what was asked, `another` asks for a user that was never asked about, `refused` is told what is missing.

All of it is work of one thread that waits for nothing, so times are those of the processor, which others on a busy machine stretch less
than the clock's.

Bars: ten credentials cold 5 ms (XML 10 ms), warm 100 µs; a hundred thousand in 500 MB, warm 1 ms.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, islice, pairwise
from pathlib import Path
from statistics import median

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey, PublicKey
from fedkit.policy import compact
from fedkit.policy.formats import Form, read, write
from fedkit.policy.formats.identities import Identities, self_signed
from fedkit.policy.model import Credential, Entity, Linked, Part, Role, Statement
from fedkit.policy.prover import Prover
from tests.unit.policy.oracle import memberships

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
TESTBEDS, USERS = 200, 250
OCTETS = 480  # of a signed text about a role and a user
KINDS = {Form.COMPACT: "ed25519", Form.X509: "rsa", Form.GENI_1_0: "rsa", Form.GENI_1_1: "rsa"}

Figures = dict[str, dict[str, float]]


def milliseconds(
    action: Callable[[], object], number: int, prepare: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Median and 95th percentile of `number` runs, each after `prepare`."""
    times = []
    for _ in range(number):
        prepare()
        began = time.thread_time()
        action()
        times.append(1000 * (time.thread_time() - began))
    times.sort()
    return {"median": round(median(times), 4), "p95": round(times[int(0.95 * (number - 1))], 4)}


def forget() -> None:
    """Empty every cache behind `read`."""
    compact._remembered.cache_clear()
    jws._signer.cache_clear()


def told(head: Role, *tail: Part, issuer: PublicKey) -> Credential:
    """A credential as a reader returns it."""
    statement = Statement(head, tail)
    return Credential(statement, issuer, LATER, None, compact.ENCODING, str(statement).encode().ljust(OCTETS, b"."))


def measure_ten(form: Form, number: int) -> Figures:
    """A chain over ten principals, from signed texts."""
    keys = [PrivateKey.generate(KINDS[form]) for _ in range(10)]
    tails: list[Part] = []
    tails.extend(Role(key.fedid, "r") for key in keys[1:])
    tails.append(Entity("0" * 40))
    texts = [
        write(form, key, Statement(Role(key.fedid, "r"), (tail,)), LATER, certificate=self_signed(key, "bench", NOW))
        for key, tail in zip(keys, tails, strict=True)
    ]
    goal = (Role(keys[0].fedid, "r"), Entity("0" * 40), NOW)
    known = [key.public for key in keys]

    def read_all() -> list[Credential]:
        identities = Identities()
        for key in known if form is Form.X509 else ():
            identities.pin(key)
        return [credential for text in texts for credential in read(text, identities=identities)]

    def cold() -> None:
        assert Prover(read_all()).prove(*goal).proved

    extra, prover = read_all(), Prover()
    return {
        f"10 credentials, {form}: cold": milliseconds(cold, number, forget),
        f"10 credentials, {form}: proof alone, cold": milliseconds(lambda: Prover().prove(*goal, extra), number),
        f"10 credentials, {form}: warm": milliseconds(lambda: prover.prove(*goal, extra), number),
        "10 credentials: naive prover": milliseconds(lambda: memberships(extra, NOW, goal[:2]), number),
    }


def measure_chains(number: int) -> Figures:
    """Links of one principal after the other."""
    issuer = PrivateKey.generate().public
    figures: Figures = {}
    for length in (100, 1_000, 10_000):
        roles = [Role(issuer.fedid, f"r{index}") for index in range(length)]
        chain = [told(head, tail, issuer=issuer) for head, tail in pairwise(roles)]
        chain.append(told(roles[-1], Entity("0" * 40), issuer=issuer))
        goal = (roles[0], Entity("0" * 40), NOW)

        def cold(chain: list[Credential] = chain, goal: tuple[Role, Entity, datetime] = goal) -> None:
            assert Prover(chain).prove(*goal).proved

        figures[f"chain of {length} links: proof"] = milliseconds(cold, max(3, number * 10 // length))
        without = Prover(chain[:-1])
        figures[f"chain of {length} links: refusal"] = milliseconds(lambda: without.prove(*goal), 3)  # noqa: B023
        if length == 100:
            figures["chain of 100 links: naive prover"] = milliseconds(lambda: memberships(chain, NOW), 1)  # noqa: B023
    return figures


def federation(key: PublicKey) -> Iterable[Credential]:
    """`TESTBEDS` testbeds of `USERS` users each, known to one whose rules lend to its members' projects."""
    names = count()
    me = key.fedid
    for testbed in (f"{number:040x}" for number in range(TESTBEDS)):
        home = PublicKey(f"{testbed} has no key".encode())
        home.__dict__["fedid"] = testbed  # no key is needed where nothing is signed
        yield told(Role(me, "member"), Entity(testbed), issuer=key)
        for project in range(3):
            yield told(
                Role(me, f"rule_{project}"),
                Role(testbed, f"project_{project}"),
                Linked(me, "member", "user"),
                issuer=key,
            )
        for number in islice(names, USERS):
            user = Entity(f"{number:039x}f")
            yield told(Role(testbed, "user"), user, issuer=home)
            yield told(Role(testbed, f"project_{number % 4}"), user, issuer=home)


def resident() -> int:
    """Megabytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 2**20


def measure_federation(number: int) -> tuple[Figures, dict[str, int]]:
    """A hundred thousand credentials."""
    key = PrivateKey.generate().public
    before = resident()
    prover = Prover(federation(key))
    memory = {"credentials": len(prover), "megabytes": resident() - before}
    goal = Role(key.fedid, "rule_0")
    user = (Entity(f"{number:039x}f") for number in count(0, 4))
    outsider = (Entity(f"{number:039x}f") for number in count(3, 4))
    same = next(user)
    figures = {
        f"among {len(prover)}: same": milliseconds(lambda: prover.prove(goal, same, NOW), number),
        f"among {len(prover)}: another": milliseconds(lambda: prover.prove(goal, next(user), NOW), number),
        f"among {len(prover)}: refused": milliseconds(lambda: prover.prove(goal, next(outsider), NOW), number),
        f"among {len(prover)}: who has it": milliseconds(lambda: prover.who_has(Role(key.fedid, "member"), NOW), 3),
        f"among {len(prover)}: what has one": milliseconds(lambda: prover.what_has(same, NOW), 3),
    }
    assert prover.prove(goal, next(user), NOW).proved
    assert not prover.prove(goal, next(outsider), NOW).proved
    return figures, memory


def measure_haystack(number: int) -> Figures:
    """One user's three credentials under noise that came with the same request."""
    key, home = PrivateKey.generate().public, PrivateKey.generate().public
    user = Entity("0" * 40)
    policy = [
        told(Role(key.fedid, "rule"), Role(home.fedid, "project"), Linked(key.fedid, "member", "user"), issuer=key),
        told(Role(key.fedid, "member"), Entity(home.fedid), issuer=key),
    ]
    own = [told(Role(home.fedid, name), user, issuer=home) for name in ("user", "project")]
    figures: Figures = {}
    for noise in (0, 100, 1_000, 10_000):
        hay = [
            told(Role(home.fedid, f"r{index}"), Role(home.fedid, f"r{index + 1}"), issuer=home)
            for index in range(noise)
        ]
        extra: Sequence[Credential] = [*hay, *own]

        def cold(extra: Sequence[Credential] = extra) -> None:
            assert Prover(policy).prove(Role(key.fedid, "rule"), user, NOW, extra).proved

        figures[f"3 credentials under {noise} others: cold"] = milliseconds(cold, max(5, number * 10 // (noise + 10)))
        if noise == 100:
            naive = lambda extra=extra: memberships([*policy, *extra], NOW)  # noqa: E731
            figures["3 credentials under 100 others: naive prover"] = milliseconds(naive, 1)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="runs for each small figure")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    figures, memory = measure_federation(arguments.number)
    for form in KINDS:
        figures |= measure_ten(form, arguments.number)
    figures |= measure_chains(arguments.number) | measure_haystack(arguments.number)
    if arguments.output == "json":
        print(json.dumps({"memory": memory, "milliseconds": figures}))
        return
    print(f"{memory['credentials']} credentials held: {memory['megabytes']} MB")
    for name, values in figures.items():
        print(f"{name:45} " + "  ".join(f"{key} {value:10.4f} ms" for key, value in values.items()))


if __name__ == "__main__":
    main()
