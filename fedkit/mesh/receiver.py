"""Answers what comes in. Every request gets a definite answer at once: done, or refused with a code (DESIGN §4.3).

    text ─► size, rate ─► signature, claims ─► addressed to us? in time? key pinned? ─► the work (`work`)
              └─── an unsigned IQ error ───┘   └─────────── a signed refusal ────────────────────────┘

What was checked before the signature can be anybody's doing, so it is answered unsigned and changes nothing at the sender. Every refusal
is logged with its code and the request's id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pydantic_core
import structlog

from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey, PublicKey
from fedkit.mesh import packs
from fedkit.mesh.api import Peer
from fedkit.mesh.envelope import (
    LIFETIME_LIMIT,
    SPOKEN,
    TEXT_LIMIT,
    Binding,
    RequestClaims,
    open_request,
    seal_answer,
)
from fedkit.mesh.errors import BadSignature, Busy, Expired, Misdirected, TooLarge, UnspokenVersion
from fedkit.mesh.inbox import error_content
from fedkit.mesh.limits import Buckets
from fedkit.mesh.link import Incoming
from fedkit.mesh.pins import Pins
from fedkit.mesh.work import SKEW, Asker, Work, answered, validated
from fedkit.store import Database

log = structlog.get_logger()

RUNNING = 256  # requests worked on at once
STRANGER_RATE = 10.0  # requests a second from somebody whose key is not pinned
STRANGER_BURST = 50.0
FORGERY_COST = 20.0  # tokens that a text with a bad signature costs its sender


@dataclass
class Receiver:
    """Answers requests to `me`. `now` is seconds since the epoch, `monotonic` seconds since anything."""

    key: PrivateKey
    me: Peer
    db: Database
    pins: Pins
    work: Work
    now: Callable[[], float]
    monotonic: Callable[[], float]
    rate: float
    running: int = 0

    def __post_init__(self) -> None:
        self._rates = Buckets(self.rate, 2 * self.rate, self.monotonic)
        self._strangers = Buckets(STRANGER_RATE, STRANGER_BURST, self.monotonic)

    async def serve(self, stanza: Incoming) -> str:
        """Return the signed answer to an IQ, or raise what goes back as an IQ error."""
        if self.running >= RUNNING:
            raise Busy(f"{RUNNING} requests are being worked on.")
        self.running += 1
        try:
            key, claims = self._open(stanza)
            content = await self._judge(stanza, key, claims)
            return seal_answer(self.key, self.me, Peer(claims.iss, claims.sjid), claims, self.now(), content)
        finally:
            self.running -= 1

    def _open(self, stanza: Incoming) -> tuple[PublicKey, Binding]:
        """Check what can be checked of any text."""
        try:
            if len(stanza.text) > TEXT_LIMIT:
                raise TooLarge(f"A text has at most {TEXT_LIMIT} characters; send a larger body in chunks.")
            self._rates.take(_domain(stanza.sender))
            return open_request(stanza.text)
        except FedError as error:
            if isinstance(error, BadSignature):
                self._rates.charge(_domain(stanza.sender), FORGERY_COST)
            log.warning("mesh_refused", code=error.code, reason=error.message, sender=stanza.sender)
            raise

    async def _judge(self, stanza: Incoming, key: PublicKey, claims: Binding) -> str:
        """Return the content of the signed answer."""
        try:
            request, asker = await self._check(stanza, key, claims)
        except FedError as error:
            log.warning(
                "mesh_refused",
                code=error.code,
                reason=error.message,
                sender=stanza.sender,
                id=claims.jti,
                operation=claims.op,
                fedid=claims.iss,
            )
            return error_content(error)
        if stanza.kind == "set" and claims.op == packs.OPERATION:
            return await answered(self._do_pack(stanza, request, asker), request, asker)
        return await answered(self.work.do(stanza.kind, request, asker), request, asker)

    async def _do_pack(self, stanza: Incoming, request: RequestClaims, asker: Asker) -> str:
        pack = validated(packs.Pack, pydantic_core.to_json(request.body))
        (self._rates if asker.pinned else self._strangers).charge(_domain(stanza.sender), len(pack.items) - 1)
        return await self.work.do_pack(pack, asker)

    async def _check(self, stanza: Incoming, key: PublicKey, claims: Binding) -> tuple[RequestClaims, Asker]:
        """Check that a request is for us, from whom it came, in time, and signed with the key that is known."""
        if claims.aud != self.me.fedid or claims.rjid != self.me.address or stanza.recipient != self.me.address:
            raise Misdirected(
                f"Signed for {claims.aud} at {claims.rjid}; this is {self.me.fedid} at {self.me.address}.",
                aud=claims.aud,
                rjid=claims.rjid,
            )
        if stanza.sender != claims.sjid:
            raise Misdirected(f"Signed by {claims.sjid}, but delivered for {stanza.sender}.", sjid=claims.sjid)
        if not isinstance(claims, RequestClaims):
            raise UnspokenVersion(
                f"Protocol {claims.v} is not spoken here; we speak {', '.join(SPOKEN)}.", spoken=list(SPOKEN)
            )
        self._check_time(claims)
        pinned = await self._is_pinned(key)
        if not pinned:
            self._strangers.take(_domain(stanza.sender))
        return claims, Asker(Peer(claims.iss, claims.sjid), key, pinned, claims.iat, claims.exp)

    def _check_time(self, claims: RequestClaims) -> None:
        now = self.now()
        clocks = {"our_clock": now, "issued": claims.iat, "expires": claims.exp}
        if claims.iat > now + SKEW:
            raise Expired(f"Issued at {claims.iat:.3f}, which is in the future: our clock says {now:.3f}.", **clocks)
        if claims.exp < now - SKEW:
            raise Expired(f"Expired at {claims.exp:.3f}; our clock says {now:.3f}.", **clocks)
        if claims.exp - claims.iat > LIFETIME_LIMIT:
            raise Expired(f"An attempt is valid for at most {LIFETIME_LIMIT:g} s.", **clocks)

    async def _is_pinned(self, key: PublicKey) -> bool:
        if self.pins.known(key):
            return True
        pinned = await self.db.read(lambda conn: self.pins.look_up(conn, key))
        if pinned:
            self.pins.remember(key)
        return pinned


def _domain(jid: str) -> str:
    return jid.rpartition("@")[2]
