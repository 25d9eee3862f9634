"""What any XMPP client may ask a component: what it is (XEP-0030), whether it lives (XEP-0199), how it is (XEP-0050).

slixmpp's plugins speak these, without slixmpp's stream: the link hands them the IQs that are not of our protocol, and sends what they
answer. The one ad-hoc command, `status`, is for the operators that the configuration names.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection
from typing import Any
from xml.etree.ElementTree import Element

import structlog
from slixmpp import ComponentXMPP
from slixmpp.exceptions import XMPPError
from slixmpp.stanza import Iq
from slixmpp.xmlstream import StanzaBase, tostring

from fedkit.mesh.envelope import NAMESPACE
from fedkit.mesh.stanzas import clean

log = structlog.get_logger()

StatusLines = Callable[[], Awaitable[dict[str, str]]]


class Services(ComponentXMPP):
    """A slixmpp component that never connects: IQs come in by `answer`, and go out by `write`."""

    def __init__(self, address: str, write: Callable[[str], None]) -> None:
        super().__init__(address, "", fix_error_ns=True)  # type: ignore[no-untyped-call]
        self._write = write
        describe(self)
        self.init_plugins()  # type: ignore[no-untyped-call]
        self.event("session_bind", self.boundjid)  # what the plugins wait for to say what they can

    def answer(self, stanza: Element) -> None:
        """Have whichever plugin knows this IQ answer it; the answer may come later. What slixmpp cannot read gets none."""
        try:
            self.recv_stanza(Iq(self, stanza, recv=True))  # type: ignore[no-untyped-call]
        except Exception:  # InvalidJID and whatever else a stranger's stanza makes of its accessors
            log.exception("mesh_service_failed", sender=stanza.get("from"))

    def send(self, data: StanzaBase | str, use_filters: bool = True) -> None:
        """Send at once (slixmpp would queue)."""
        del use_filters
        if isinstance(data, Iq):
            self._write(tostring(data.xml, xmlns=self.default_ns, stream=self, top_level=True))


def describe(xmpp: ComponentXMPP) -> None:
    """Answer discovery and ping; before the component connects."""
    _mend_escape()
    for plugin in ("xep_0030", "xep_0199", "xep_0004", "xep_0050"):
        xmpp.register_plugin(plugin)
    disco = xmpp.plugin["xep_0030"]
    disco.add_identity(category="component", itype="generic", name="fedmesh", jid=xmpp.boundjid)
    disco.add_feature(NAMESPACE, jid=xmpp.boundjid)


def install(xmpp: ComponentXMPP, operators: Collection[str], status: StatusLines) -> None:
    """Offer the ad-hoc command `status` to these bare JIDs."""

    async def show_status(iq: Any, session: dict[str, Any]) -> dict[str, Any]:
        if iq["from"].bare not in operators:
            raise XMPPError("forbidden", etype="auth", text="Only the operators of this component may do this.")
        form: Any = xmpp.plugin["xep_0004"]
        form = form.make_form(ftype="result", title=f"Status of {xmpp.boundjid.bare}")
        for name, value in (await status()).items():
            form.add_field(var=name, ftype="text-single", value=value)
        session.update(payload=form, next=None, has_next=False)
        return session

    xmpp.plugin["xep_0050"].add_command(node="status", name="Status", handler=show_status)


def _mend_escape() -> None:
    """Replace slixmpp's escape, which takes a Python step for each character and lets control characters through."""

    def mended(text: str, use_cdata: bool = False) -> str:
        del use_cdata  # what its callers pass; nothing here uses CDATA sections
        return clean(text).replace("'", "&apos;").replace('"', "&quot;")

    sys.modules["slixmpp.xmlstream.tostring"].escape = mended  # type: ignore[attr-defined]
