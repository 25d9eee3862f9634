"""The member's family of errors; each code appears once."""

from __future__ import annotations

from enum import StrEnum

from fedkit.errors import Exit, FedError, InputError
from fedkit.mesh.api import RecordedRefusal


class Why(StrEnum):
    """Codes that stand beside the reason of an order or lease, and are never raised."""

    UNMET_REQUIREMENTS = "orders.unmet_requirements"  # nobody that we know offers what is asked for
    REFUSED_BY_ALL = "orders.refused_by_all"  # for different reasons, each told
    WAITS_FOR_NETWORK = "orders.waits_for_network"
    WAITS_FOR_MACHINE = "orders.waits_for_machine"
    WAITS_FOR_VOLUME = "orders.waits_for_volume"
    WAITS_FOR_SNAPSHOT = "orders.waits_for_snapshot"
    APART = "orders.apart"  # what it uses is at different members, or lent to its user under different names
    USED_ENDED = "orders.used_ended"  # an order that it uses has ended for good
    VALIDITY_ENDED = "orders.validity_ended"
    LEASE_LOST = "lease.lost"  # the instance vanished at its lender
    LEASE_EXPIRED = "lease.expired"  # its borrower did not renew it
    LEASE_USED_ENDED = "lease.used_ended"  # a lease that it uses ends
    REVOKED = "member.revoked"  # a credential on which it rested was revoked
    LEASE_ENDED = "lease.ended"  # its lender gave no other reason
    MIDDLEWARE_TIMEOUT = "middleware.timeout"
    MIDDLEWARE_BROKE = "middleware.broke"  # an error that no middleware should let through


class UnknownOrder(FedError):
    """No such order, or not this user's."""

    code = "orders.unknown_order"
    http = 404
    exit = Exit.REFUSED


class IdempotencyConflict(FedError):
    """The same idempotency key came with another request."""

    code = "orders.idempotency_conflict"
    http = 409
    exit = Exit.REFUSED


class InUse(FedError):
    """An order that others use cannot be deleted before them; `users` in the details are their ids."""

    code = "orders.in_use"
    http = 409
    exit = Exit.REFUSED


class NotRunning(FedError):
    """Nothing of the order runs, so there is nothing to change, to look at, or to open a tunnel to."""

    code = "orders.not_running"
    http = 409
    exit = Exit.REFUSED


class UnknownReference(InputError):
    """An order names another that is not of its user, not of the right kind, or has ended."""

    code = "orders.unknown_reference"


class UnknownNetwork(UnknownReference):
    """What is named as a network is none of its user's."""

    code = "orders.unknown_network"


class NotYourProject(InputError):
    """An order names a project that its user is not in; the message names those that there are."""

    code = "orders.not_your_project"


class UnusableRequirements(InputError):
    """A requirement expression that cannot be read."""

    code = "orders.unusable_requirements"


class UnknownRequirement(InputError):
    """A requirement expression uses a name that nothing has; the message says the nearest one."""

    code = "orders.unknown_requirement"


class UnusableCursor(InputError):
    """A page or event cursor that was not made here."""

    code = "orders.unusable_cursor"


class UnknownLease(FedError):
    """No such lease of this borrower."""

    code = "lease.unknown"
    http = 404
    exit = Exit.REFUSED


class LeaseGone(FedError):
    """The lease was released, perhaps before it was asked for; its id cannot be used again."""

    code = "lease.gone"
    http = 410
    exit = Exit.REFUSED


class NotLent(FedError):
    """This member does not lend that: another kind, image, flavour or requirement."""

    code = "lease.not_lent"
    http = 409
    exit = Exit.REFUSED


class Cannot(FedError):
    """What was lent cannot be changed or looked at in this way; the message names what can be done here."""

    code = "lease.cannot"
    http = 409
    exit = Exit.REFUSED


class NoTunnel(FedError):
    """No tunnel can be had: none is configured here, the order's share is used up, or the name is not open."""

    code = "lease.no_tunnel"
    http = 409
    exit = Exit.REFUSED


class NotAllowed(RecordedRefusal):
    """The lender's policy does not grant this; the message says what came nearest, `missing` in the details what would do."""

    code = "member.not_allowed"
    http = 403
    exit = Exit.REFUSED


class NotYet(FedError):
    """The lender has not answered in time; it may have done what was asked."""

    code = "orders.not_yet"
    http = 504
    exit = Exit.TIMED_OUT


class TunnelNotYet(FedError):
    """The tunnel server has not answered in time; the request stands."""

    code = "orders.tunnel_not_yet"
    http = 504
    exit = Exit.TIMED_OUT
