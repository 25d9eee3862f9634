"""The links of an experiment's machine, shaped by real `tc` in namespaces of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedkit.node.script import NodeConfig
from fedkit.topology.shaping import Shape, Way
from tests.unit.node.test_script import run

LOOK = "sleep 0.5; tc qdisc show; echo ==; ip -br link show d0; echo ==; sh /mnt/script; tc qdisc show"
ADDRESS = "10.1.1.2"  # of d0
pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def test_rates_hold_each_way_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    log, shown = run(tmp_path, NodeConfig("a", shapes={ADDRESS: Shape(Way(2000), Way(3000))}), after=LOOK)
    assert "not as described" not in log
    before, _, after = shown.split("==")
    for seen in (before, after):
        assert "dev d0 root" in seen
        assert "rate 2Mbit" in seen
        assert "dev in-d0 root" in seen
        assert "rate 3Mbit" in seen


def test_a_link_without_its_delay_is_none_and_that_is_told(tmp_path: Path) -> None:
    log, shown = run(tmp_path, NodeConfig("a", shapes={ADDRESS: Shape(Way(None, 20.0), Way())}), after=LOOK)
    if "netem" in shown:
        assert "delay 20ms" in shown
    else:
        assert f"the link at {ADDRESS} is not as described (netem limit 1752 delay 20ms loss 0%; )" in log
        assert shown.split("==")[1].split()[1] == "DOWN"


def test_what_is_not_said_is_not_done(tmp_path: Path) -> None:
    _, shown = run(tmp_path, NodeConfig("a", shapes={ADDRESS: Shape()}), after=LOOK)
    assert "tbf" not in shown
    assert "ingress" not in shown
