"""The borrower's end of the wire: what lenders answer and report, handed to the books in the mesh's own transactions.

Codes of the family `mesh.` mean that no definite answer came: the lender may have accepted. Every other error is a refusal.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from federation_member.orders.leases import LIVE
from federation_member.orders.lenders import Lenders
from federation_member.orders.model import AttemptState
from federation_member.orders.progress import Progress
from federation_member.orders.scheduler import Scheduler
from federation_member.orders.store import AttemptRecord, Record, load, load_attempt
from federation_member.usage import book
from fedkit.errors import FedError, RemoteError
from fedkit.mesh.api import Mesh, Outcome, Peer, Request
from fedkit.mesh.errors import BadAnswer, NoAnswer
from fedkit.protocol import Empty
from fedkit.protocol.lending import LeaseChanged, LeaseState, LeaseView
from fedkit.store import Tx

NO_ANSWER = "did not answer in time"

Told = Callable[[str, FedError | None], None]


class Borrowing:
    """Serves the borrower's operations.

    `told(request_id, error)` hears how requests ended for which a user waits, `silent(fedid)` who left an order without an answer.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        progress: Progress,
        lenders: Lenders,
        told: Told,
        silent: Callable[[str], None],
        room: Callable[[str], None],
    ) -> None:
        self._scheduler = scheduler
        self._progress = progress
        self._lenders = lenders
        self._told = told
        self._silent = silent
        self._room = room

    def serve(self, mesh: Mesh) -> None:
        """Register with the mesh."""
        mesh.on_answer("lease.create", self._created)
        mesh.on_answer("lease.release", self._released)
        for operation in ("tunnel.open", "tunnel.close", "lease.change"):
            mesh.on_answer(operation, self._asked_for)
        mesh.on_command("lease.changed", LeaseChanged, self._changed)
        mesh.on_command("lease.room", Empty, self._has_room)

    def own_changed(self, tx: Tx, view: LeaseView, fedid: str) -> None:
        """Hear of a lease of this very member."""
        self._apply(tx, fedid, view)

    def lock_order_of(self, tx: Tx, lease_id: str) -> None:
        """Take the lock of the order that a lease was made for."""
        attempt = load_attempt(tx.conn, lease_id)
        if attempt is not None:
            load(tx.conn, attempt.attempt.order_id, lock=True)

    def _apply(self, tx: Tx, fedid: str, view: LeaseView) -> bool:
        def judge(tx: Tx, record: Record, attempt: AttemptRecord) -> Record:
            return self._progress.view(tx, record, attempt, view)

        known = self._scheduler.heard(tx, view.lease_id, fedid, judge)
        if not known:
            book.borrowed_before(tx, fedid, view)
        return known

    def _created(self, tx: Tx, outcome: Outcome) -> None:
        lease_id = str(outcome.sent["lease_id"])
        answer = _answer(outcome)
        if isinstance(answer, LeaseView):
            self._apply(tx, outcome.peer.fedid, answer)
            return

        def judge(tx: Tx, record: Record, attempt: AttemptRecord) -> Record:
            if not answer.code.startswith("mesh."):
                return self._progress.refused(tx, record, attempt, answer)
            if attempt.state is not AttemptState.ASKED:
                return record  # only the answer was lost: its lender has spoken of the lease since
            self._silent(outcome.peer.fedid)  # before the next candidate is chosen, in this same transaction
            return self._progress.abandon(tx, record, attempt, answer.code, NO_ANSWER)

        self._scheduler.heard(tx, lease_id, outcome.peer.fedid, judge)

    def _released(self, tx: Tx, outcome: Outcome) -> None:
        lease_id = str(outcome.sent["lease_id"])
        answer = _answer(outcome)
        if isinstance(answer, LeaseView):
            self._apply(tx, outcome.peer.fedid, answer)
            return

        def judge(tx: Tx, record: Record, attempt: AttemptRecord) -> Record:
            if attempt.final:
                return record
            if answer.code.startswith("mesh."):  # never heard: say it again until it is
                self._progress.release(tx, attempt, attempt.attempt.code, attempt.attempt.reason, attempt.state)
                return record
            return self._progress.forgotten(tx, record, attempt)

        self._scheduler.heard(tx, lease_id, outcome.peer.fedid, judge)

    def _asked_for(self, tx: Tx, outcome: Outcome) -> None:
        answer = _answer(outcome)
        if isinstance(answer, LeaseView):
            self._apply(tx, outcome.peer.fedid, answer)
        elif outcome.sent.get("segment") is not None:
            self._not_going(tx, outcome, answer)
        tx.after_commit(lambda: self._told(outcome.request_id, answer if isinstance(answer, RemoteError) else None))

    def _not_going(self, tx: Tx, outcome: Outcome, error: RemoteError) -> None:
        """A lender that does not do with a segment what it is told is done without, unless its answer was not waited for."""
        if error.code == NoAnswer.code:
            return

        def judge(tx: Tx, record: Record, attempt: AttemptRecord) -> Record:
            return self._progress.abandon(tx, record, attempt, error.code, error.message)

        self._scheduler.heard(tx, str(outcome.sent["lease_id"]), outcome.peer.fedid, judge)

    def _changed(self, tx: Tx, request: Request[LeaseChanged]) -> Empty:
        view = request.body.lease
        known = self._apply(tx, request.sender.fedid, view)
        if not known and view.state in LIVE | {LeaseState.FAILING}:
            # Ours by its lender's word, but not in our book (which was lost, perhaps): nobody would ever give it back.
            self._lenders.release(tx, Peer(request.sender.fedid, request.sender.address), view.lease_id)
        return Empty()

    def _has_room(self, tx: Tx, request: Request[Empty]) -> Empty:
        tx.after_commit(lambda: self._room(request.sender.fedid))
        return Empty()


def _answer(outcome: Outcome) -> LeaseView | RemoteError:
    """The view that a lender answered, or why there is none; an answer that makes no sense counts as none."""
    if outcome.error is not None:
        return outcome.error
    try:
        view = LeaseView.model_validate(outcome.answer)
    except ValidationError:
        view = None
    if view is None or view.lease_id != outcome.sent["lease_id"]:
        return RemoteError(BadAnswer.code, f"{outcome.peer.address} answered with something else than asked for")
    return view
