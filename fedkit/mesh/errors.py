"""The mesh's family of errors: `mesh.what`.

Three places use them. A receiver that can tell who asked answers with a *signed* refusal; one that cannot (nothing signed, a bad
signature) answers with an IQ error that carries the code, which the sender takes as a hint to try again and never as an
answer. The sender's own side raises the rest. `docs/protocol.md` lists the codes with what each side does about them.
"""

from __future__ import annotations

from typing import Any

from fedkit.errors import Exit, FedError


class MeshError(FedError):
    """Base of the family."""

    code = "mesh.failed"
    http = 502
    exit = Exit.NOT_REACHABLE


class PeerUnreachable(MeshError):
    """The peer was not reached, or is not tried before `details.next_attempt`; it executed nothing."""

    code = "mesh.unreachable"
    http = 503


class LinkDown(PeerUnreachable):
    """There is no link to our own XMPP server; nothing was sent."""

    code = "mesh.link_down"


class NoAnswer(MeshError):
    """The time for an answer went by; the peer may have executed the request."""

    code = "mesh.no_answer"
    http = 504
    exit = Exit.TIMED_OUT


class Bounced(MeshError):
    """An unsigned IQ error came back, from whomever on the way: a hint, not an answer."""

    code = "mesh.bounced"

    def __init__(self, condition: str, text: str, fault: str = "", retry_after: float = 0.0) -> None:
        super().__init__(f"{fault or condition}: {text}", condition=condition, fault=fault)
        self.condition = condition
        self.fault = fault
        self.retry_after = retry_after


class BadAnswer(MeshError):
    """What came back is not an answer of the peer we asked."""

    code = "mesh.bad_answer"


class ComponentRefused(MeshError):
    """Our XMPP server refuses us: wrong component secret, or an address that it does not serve."""

    code = "mesh.component_refused"


class TooLarge(MeshError):
    """The body is larger than the mesh carries."""

    code = "mesh.too_large"
    http = 413
    exit = Exit.UNUSABLE_INPUT


class Refused(MeshError):
    """Base of what a receiver refuses."""

    http = 400
    exit = Exit.REFUSED


class Malformed(Refused):
    """Not a request of this protocol."""

    code = "mesh.malformed"


class BadSignature(Refused):
    """Signed wrongly, or by a key other than the sender that it names."""

    code = "mesh.bad_signature"
    http = 403


class KeyConflict(Refused):
    """Another key with the same fedid is pinned: one of the two is an attack."""

    code = "mesh.key_conflict"
    http = 403


class Misdirected(Refused):
    """Signed for another recipient, or delivered for another sender."""

    code = "mesh.misdirected"
    http = 403


class Expired(Refused):
    """Past its expiry, or from the future; names both clocks."""

    code = "mesh.expired"


class Replayed(Refused):
    """This very attempt was seen before."""

    code = "mesh.replayed"
    http = 409


class IdReused(Refused):
    """A request id came back with another operation or body."""

    code = "mesh.id_reused"
    http = 409


class OutOfOrder(Refused):
    """An earlier command of the same sender has not been executed yet; send that first."""

    code = "mesh.out_of_order"
    http = 409


class Incomplete(Refused):
    """The body that the request refers to has not arrived whole; send its chunks again."""

    code = "mesh.incomplete"
    http = 409


class SendAgain(Refused):
    """The answer did not fit its pack; the command was answered, and alone it gets that answer."""

    code = "mesh.send_again"
    http = 409


class UnspokenVersion(Refused):
    """A protocol version that we do not speak; `details.spoken` lists those we do."""

    code = "mesh.version"


class UnknownOperation(Refused):
    """Nobody here serves this operation."""

    code = "mesh.unknown_operation"
    http = 404


class BadBody(Refused):
    """The body does not fit the operation's schema; `details.fields` names where."""

    code = "mesh.bad_body"


class AnswerTooLarge(Refused):
    """The answer does not fit one stanza; ask for less."""

    code = "mesh.answer_too_large"


class RateLimited(Refused):
    """The sender asks too fast; `retry_after` is in seconds."""

    code = "mesh.rate_limited"
    http = 429

    def __init__(self, message: str, retry_after: float, **details: Any) -> None:
        super().__init__(message, retry_after=retry_after, **details)
        self.retry_after = retry_after


class Busy(Refused):
    """As much is being worked on as this node allows itself."""

    code = "mesh.busy"
    http = 503
    retry_after = 1.0
