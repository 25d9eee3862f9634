"""The program: `kit.pyz apply`, `undo`, `status`; `serve` and `ask` are of the control network.

    apply    makes this machine what client.conf says; again, it changes nothing
    undo     makes it what it was before
    status   prints what was changed, as JSON
    serve    answers the control network (the kit starts it itself)
    ask      asks a node of the control network: nodes, run COMMAND, events, event NODE TARGET ACTION

What it says stands in /tmp/federate, too. Exit status: 0 done, 1 something failed, 2 unusable input.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from fedkit.node.kit import conf as confs
from fedkit.node.kit.control import asking, serving
from fedkit.node.kit.doing import carry_out, undo
from fedkit.node.kit.errors import BadConf, KitError
from fedkit.node.kit.journal import Journal
from fedkit.node.kit.plan import KINDS, plan
from fedkit.node.kit.system import System, say

LOG = "/tmp/federate"  # noqa: S108  where experimenters look for it since DETER's first federation
PATIENCE = 180.0  # seconds for networks and servers to come up


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says."""
    asked = _parser().parse_intermixed_args(arguments)
    system = System(state=asked.state, kit=_self())
    try:
        if asked.verb == "serve":
            return serving.serve(_conf(asked.conf), Path(asked.state))
        if asked.verb == "ask":
            print(json.dumps(asking.ask(_conf(asked.conf), asked.words), indent=1))
            return 0
        return _change(asked.verb, asked.conf, asked.patience, system)
    except BadConf as error:
        say(str(error))
        return 2
    except (KitError, OSError) as error:
        say(str(error))
        return 1


def _change(verb: str, conf: str, patience: float, system: System) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it outlives the shell that it was started from
    journal = Journal(system.path(system.state))
    if verb == "status":
        journal.read()
        print(json.dumps([{"change": entry.key, "made": entry.made} for entry in journal.entries.values()], indent=1))
        return 0
    if verb == "undo":
        with journal.open():
            failed = undo(system, journal, KINDS)
        if not failed:
            Path(LOG).unlink(missing_ok=True)
        return int(bool(failed))
    read = _conf(conf)
    with Path(LOG).open("a") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
        os.dup2(log.fileno(), sys.stdout.fileno())
    system = replace(system, say=say)
    say(f"node {read.name}")
    with journal.open():
        failed = carry_out(system, journal, plan(read, system, journal, conf), KINDS, patience)
    say("this node is as it shall be" if not failed else f"{len(failed)} things failed")
    return int(bool(failed))


def _conf(path: str) -> confs.Conf:
    try:
        return confs.read(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadConf(f"{path} cannot be read: {error}") from None


def _self() -> list[str]:
    """How this program is started again."""
    archive = os.path.abspath(sys.argv[0])
    return [sys.executable, archive] if archive.endswith(".pyz") else [sys.executable, "-m", "fedkit.node.kit"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kit.pyz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=["apply", "undo", "status", "serve", "ask"])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--conf", default=confs.PATH)
    parser.add_argument("--state", default=System().state)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wait for networks and servers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
