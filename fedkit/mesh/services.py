"""What any XMPP client may ask a component: what it is (XEP-0030), whether it lives (XEP-0199), how it is (XEP-0050).

slixmpp's plugins speak these. The one ad-hoc command, `status`, is for the operators that the configuration names.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from slixmpp import ComponentXMPP
from slixmpp.exceptions import XMPPError

from fedkit.mesh.envelope import NAMESPACE
from fedkit.mesh.stanzas import clean

StatusLines = Callable[[], Awaitable[dict[str, str]]]


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
