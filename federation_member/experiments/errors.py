"""What can be wrong with an experiment."""

from __future__ import annotations

from enum import StrEnum

from fedkit.errors import Exit, FedError, InputError


class Why(StrEnum):
    """Codes that stand beside the reason of an experiment, and are never raised."""

    ENDED = "experiments.validity_ended"
    ENDS_SOON = "experiments.ends_soon"
    SEGMENT_LOST = "experiments.segment_lost"  # its lender gave no code of its own
    SEGMENT_GIVEN_BACK = "experiments.segment_given_back"  # somebody deleted its order
    SEGMENT_NONSENSE = "experiments.segment_nonsense"  # its lender tells of it what cannot be
    NOT_STARTED = "experiments.not_started"  # its lender took too long
    NOT_JOINED = "experiments.not_joined"  # portals that everything depends on did not find one another
    INCOMPLETE = "experiments.incomplete"  # active without what may fail
    NOT_EXTENDED = "experiments.not_extended"  # lenders took too long
    PORTAL_FAILED = "experiments.portal_failed"  # that waited for a desktop
    UNCONFIRMED = "experiments.unconfirmed"  # a lender was silent until its leases had ended by themselves


class UnknownExperiment(FedError):
    """No such experiment, or none that this user may see."""

    code = "experiments.unknown"
    http = 404
    exit = Exit.REFUSED


class NotGranted(FedError):
    """The credentials that were shown do not let this user operate the experiment: forged, expired, or somebody else's."""

    code = "experiments.not_granted"
    http = 403
    exit = Exit.REFUSED


class NameTaken(FedError):
    """The user has an experiment of that name which has not ended."""

    code = "experiments.name_taken"
    http = 409
    exit = Exit.REFUSED


class HasEnded(FedError):
    """The experiment has ended or is ending, so nothing about it can be prolonged or granted any more."""

    code = "experiments.ended"
    http = 409
    exit = Exit.REFUSED


class NotContained(InputError):
    """A description to extend an experiment by that would change what runs; `changed` in the details says what."""

    code = "experiments.not_contained"


class NotExtensible(FedError):
    """The experiment is not active, or an extension of it is under way."""

    code = "experiments.not_extensible"
    http = 409
    exit = Exit.REFUSED


class NotAttachable(FedError):
    """Nothing can be attached to the experiment as it is now: it is not active, is being extended, or has no room or no way."""

    code = "experiments.not_attachable"
    http = 409
    exit = Exit.REFUSED


class UnusableAttachment(InputError):
    """A link or LAN, a name, a key or an id by which nothing can be attached."""

    code = "experiments.unusable_attachment"


class UnknownAttachment(FedError):
    """Nothing is attached by that id, not any more, or nothing that this user may see."""

    code = "experiments.unknown_attachment"
    http = 404
    exit = Exit.REFUSED


class TooManyAttachments(FedError):
    """As many desktops as an experiment may have, or as one user may have in it."""

    code = "experiments.too_many_attachments"
    http = 409
    exit = Exit.REFUSED


class UnusableMapping(InputError):
    """A mapping names a testbed that the description does not, or a member that nobody knows."""

    code = "experiments.unusable_mapping"


class UnusableParty(InputError):
    """A party that the experiment does not have, or of testbeds that the description does not have or that are another's."""

    code = "experiments.unusable_party"


class NothingToRun(InputError):
    """A description without computers."""

    code = "experiments.nothing_to_run"


class NoWay(FedError):
    """Two testbeds have something to say to each other, and neither can be reached by the other."""

    code = "experiments.no_way"
    http = 409
    exit = Exit.REFUSED


class TooLarge(InputError):
    """More crossings, nodes or routes than a segment can carry."""

    code = "experiments.too_large"
