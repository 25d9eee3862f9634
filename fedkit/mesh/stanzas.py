"""XML in and out of the component link, as plain functions: what an element says, text for what goes out.

What comes in was measured before (`stream`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from fedkit.errors import FedError
from fedkit.mesh.envelope import NAMESPACE
from fedkit.mesh.errors import BadSignature, Bounced, Busy, Malformed, RateLimited, TooLarge

COMPONENT = "jabber:component:accept"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
PING = "urn:xmpp:ping"

ID_LIMIT = 256  # characters
MESSAGE_LIMIT = 1024  # characters of an unsigned error's text

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 §2.2 Char
_CONDITIONS: dict[str, tuple[str, str]] = {
    Malformed.code: ("modify", "bad-request"),
    BadSignature.code: ("auth", "forbidden"),
    TooLarge.code: ("modify", "not-acceptable"),
    RateLimited.code: ("wait", "resource-constraint"),
    Busy.code: ("wait", "resource-constraint"),
}
_OTHER = ("wait", "internal-server-error")


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an answer goes: the request's id and addresses, turned round."""

    id: str
    to: str
    sender: str


def clean(text: str) -> str:
    """Escape a text for XML, leaving out what XML cannot carry (which would end the whole link)."""
    return escape(_FORBIDDEN.sub("", text))


def iq_request(identifier: str, kind: str, sender: str, to: str, payload: str) -> str:
    """An IQ of type get or set around a payload that is XML already."""
    return f"<iq type='{kind}' id='{identifier}' from={quoteattr(sender)} to={quoteattr(to)}>{payload}</iq>"


def request(text: str) -> str:
    """The one element of a request; `text` is base64url and dots."""
    return f"<request xmlns='{NAMESPACE}'>{text}</request>"


def ping() -> str:
    """XEP-0199 §4."""
    return f"<ping xmlns='{PING}'/>"


def iq_answer(reply: Reply, text: str) -> str:
    """The result of a request."""
    return f"<iq type='result' {_addresses(reply)}><answer xmlns='{NAMESPACE}'>{text}</answer></iq>"


def iq_error(reply: Reply, error: FedError) -> str:
    """An unsigned refusal, with its code in an application element (RFC 6120 §8.3.2)."""
    kind, condition = _CONDITIONS.get(error.code, _OTHER)
    hint = getattr(error, "retry_after", 0.0)
    wait = f" retry-after='{hint:.3f}'" if hint else ""
    return (
        f"<iq type='error' {_addresses(reply)}><error type='{kind}'><{condition} xmlns='{STANZAS}'/>"
        f"<text xmlns='{STANZAS}'>{clean(error.message[:MESSAGE_LIMIT])}</text>"
        f"<fault xmlns='{NAMESPACE}' code='{error.code}'{wait}/></error></iq>"
    )


def policy_violation(reply: Reply) -> str:
    """The answer to a stanza out of bounds (RFC 6120 §8.3.3.12)."""
    return (
        f"<iq type='error' {_addresses(reply)}><error type='modify'><policy-violation xmlns='{STANZAS}'/></error></iq>"
    )


def reply_to(stanza: Element) -> Reply | None:
    """Where the answer to this IQ goes; None if it cannot have one."""
    identifier, sender, recipient = stanza.get("id", ""), stanza.get("from", ""), stanza.get("to", "")
    if not 0 < len(identifier) <= ID_LIMIT or not sender or not recipient:
        return None
    return Reply(identifier, sender, recipient)


def is_ours(stanza: Element) -> bool:
    """Tell whether anything in this IQ is of our namespace, so that it is ours to answer."""
    prefix = f"{{{NAMESPACE}}}"
    return any(child.tag.startswith(prefix) for child in stanza)


def payload_text(stanza: Element, name: Literal["request", "answer"]) -> str:
    """The text of an IQ's one element; raise `Malformed` for anything more or else."""
    if len(stanza) != 1:
        raise Malformed(f"An IQ of this protocol holds exactly one element; this one holds {len(stanza)}.")
    child = stanza[0]
    if child.tag != f"{{{NAMESPACE}}}{name}" or len(child) or child.attrib:
        raise Malformed(f"The IQ's one element is {name} in {NAMESPACE}, with nothing in it but text.")
    return (child.text or "").strip()


def bounced(stanza: Element) -> Bounced:
    """Read an IQ error, whoever wrote it."""
    condition, text, fault, wait = "undefined-condition", "", "", 0.0
    for child in stanza.findall(f"{{{COMPONENT}}}error/*")[:8]:
        namespace, _, name = child.tag.rpartition("}")
        if namespace == "{" + NAMESPACE and name == "fault":
            fault, wait = child.get("code", "")[:64], _seconds(child.get("retry-after", ""))
        elif namespace == "{" + STANZAS and name == "text":
            text = (child.text or "")[:MESSAGE_LIMIT]
        elif namespace == "{" + STANZAS:
            condition = name[:64]
    return Bounced(condition, text, fault, wait)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 < value < float("inf") else 0.0


def _addresses(reply: Reply) -> str:
    return f"id={quoteattr(reply.id)} from={quoteattr(reply.sender)} to={quoteattr(reply.to)}"
