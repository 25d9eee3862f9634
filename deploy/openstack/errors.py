"""What can go wrong with an OpenStack of the lab; family `openstack_lab`."""

from __future__ import annotations

from fedkit.errors import Exit, FedError, InputError


class CloudFailed(FedError):
    """A part of it did not start, ended, or refused what it was asked; the message ends with what it said."""

    code = "openstack_lab.failed"


class NotInstalled(FedError):
    """Programs or Python packages are missing."""

    code = "openstack_lab.not_installed"
    exit = Exit.REFUSED


class NotRunning(FedError):
    """No cloud runs on that state."""

    code = "openstack_lab.not_running"
    http = 404
    exit = Exit.NOT_REACHABLE


class AlreadyRunning(FedError):
    """A cloud runs on that state already."""

    code = "openstack_lab.already_running"
    http = 409
    exit = Exit.REFUSED


class UnusablePlace(InputError):
    """The state directory or the address cannot be used."""

    code = "openstack_lab.unusable_place"
