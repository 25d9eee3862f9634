"""Shares the tests out to the processes of a run (pytest-xdist, `pytest -n 4`).

The tests of a file stay in one process, in their order, and with them all files that use the same lab or the same OpenStack: they take
seconds to come up, and tests kill and cut what others use. Those that mostly wait for what they killed to come back have a lab of their own
beside the others'. Everything else is free; slow and large shares go first.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

LAB = PurePosixPath("tests/lab")
CLOUD = PurePosixPath("tests/component/middleware/openstack")
CLOUDS_OWN = {"test_real_keystone"}  # it uses the same cloud
WAITING = {"test_crashes", "test_experiment_crashes", "test_partitions", "test_hostile"}
OWN = {
    "test_network",
    "test_lifecycle",
    "test_demo",
    "test_libvirt",
    "test_mixed_experiments",
    "test_openstack",
}  # have labs of their own anyway
SLOW = (  # shares that take minutes whatever their number of tests, the slowest first
    "an OpenStack",
    "the lab",
    "tests/lab/test_openstack.py",
    "tests/component/middleware/test_libvirt_faults.py",
    "tests/lab/test_demo.py",
    "tests/lab/test_libvirt.py",
    "tests/lab/test_mixed_experiments.py",
    "tests/component/middleware/test_libvirt.py",
    "a lab for waiting",
    "tests/component/middleware/test_containers_without_root.py",
    "tests/component/middleware/test_strangers_plugin.py",
    "tests/component/experiments/test_campaign.py",
    "tests/component/orders/test_laws.py",
    "tests/component/usage/test_day.py",
    "tests/component/member/test_schema.py",
)


class Lanes(LoadScopeScheduling):  # type: ignore[misc]
    """A share of work is a file or a lab."""

    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        slowest = next((name for name in SLOW if name in self.workqueue), None)
        if slowest is not None:
            self.workqueue.move_to_end(slowest, last=False)
        super()._assign_work_unit(node)


def share(nodeid: str) -> str:
    """Name the share of work that a test belongs to."""
    file = PurePosixPath(nodeid.partition("::")[0])
    if CLOUD in file.parents or file.stem in CLOUDS_OWN:
        return "an OpenStack"
    if file.parent != LAB or file.stem in OWN:
        return str(file)
    return "a lab for waiting" if file.stem in WAITING else "the lab"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Lanes:
    """Tell pytest-xdist how to share the tests out."""
    return Lanes(config, log)
