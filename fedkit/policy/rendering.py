"""A proof, or what is missing for one, as people see it: text or Mermaid. The dashboard draws its own picture (`web/static/proof.js`).

Both take the form in which proofs travel and are kept, `Proof.as_json()` and `Refusal.as_json()`, so that a stored decision is drawn like a
fresh one. `names` are what principals call themselves; a name never stands alone but with the first digits of its fedid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Steps = Sequence[Mapping[str, Any]]
Names = Mapping[str, str]

DRAWN_LIMIT = 200  # steps; no picture of more is of use to anybody
_SHORT = 8  # digits of a fedid
_NAME_LIMIT = 32  # characters
_NOT_IN_NAMES = re.compile(r"[^\w@+-]")
_FEDID = re.compile(r"\b[0-9a-f]{40}\b")


def name_all(text: str, names: Names) -> str:
    """Put names to the fedids in `text`: `5a151e…` becomes `Acme:5a151e17`."""
    return _FEDID.sub(lambda match: _called(match[0], names), text)


def legend(texts: Sequence[str], names: Names) -> list[str]:
    """Return a line for each principal in `texts` that has a name: which fedid it is."""
    seen = dict.fromkeys(fedid for text in texts for fedid in _FEDID.findall(text))
    return [f"{_called(fedid, names)} is {fedid}" for fedid in seen if fedid in names]


def proof_text(steps: Steps, names: Names) -> str:
    """Number the steps of a proof, each with the credential that it rests on and the steps before it."""
    lines = []
    for number, step in enumerate(steps, 1):
        because = ", ".join(str(index + 1) for index in step["because"])
        lines.append(f"{number:>3}. {_claim(step, names)}")
        lines.append(f"     by {name_all(step['statement'], names)}{f', and {because}' if because else ''}")
    return "\n".join([*lines, *legend([step["statement"] for step in steps], names)])


def missing_text(missing: Sequence[Sequence[str]], names: Names) -> str:
    """Say which credentials would complete a proof."""
    if not missing:
        return "No credential that anybody named here could issue would complete a proof."
    lines = ["Any of these would complete a proof:"]
    for number, statements in enumerate(missing, 1):
        lines += [
            f"{f'{number}.' if first == 0 else '   +':>5} {name_all(statement, names)}"
            for first, statement in enumerate(statements)
        ]
    return "\n".join([*lines, *legend([text for statements in missing for text in statements], names)])


def proof_mermaid(steps: Steps, names: Names) -> str:
    """Draw a proof as a Mermaid flow chart, the conclusion at the bottom."""
    lines = ["flowchart TD"]
    for index, step in enumerate(_drawn(steps)):
        label = f"{_mermaid(_claim(step, names))}<br/><i>{_mermaid(name_all(step['statement'], names))}</i>"
        lines.append(f'  s{index}["{label}"]')
        lines += [f"  s{earlier} --> s{index}" for earlier in step["because"]]
    return "\n".join(lines)


def missing_mermaid(missing: Sequence[Sequence[str]], names: Names) -> str:
    """Draw the sets of missing credentials as a Mermaid flow chart."""
    lines = ["flowchart TD", '  goal["not proved"]']
    for index, statements in enumerate(missing):
        label = "<br/>".join(_mermaid(name_all(statement, names)) for statement in statements)
        lines += [f'  m{index}["{label}"]:::missing', f"  m{index} -.-> goal"]
    return "\n".join([*lines, "  classDef missing stroke-dasharray: 5 5"])


def _called(fedid: str, names: Names) -> str:
    if fedid not in names:
        return fedid
    # A name that looks like more of a statement would tell the reader a lie.
    name = _NOT_IN_NAMES.sub("_", names[fedid])[:_NAME_LIMIT]
    return f"{name}:{fedid[:_SHORT]}"


def _claim(step: Mapping[str, Any], names: Names) -> str:
    subject, role = name_all(step["subject"], names), name_all(step["role"], names)
    return f"{'all of ' if '.' in step['subject'] else ''}{subject} has {role}"


def _drawn(steps: Steps) -> Steps:
    """The last steps, with what they rest on as far as it is drawn."""
    first = max(0, len(steps) - DRAWN_LIMIT)
    return [
        {**step, "because": [earlier - first for earlier in step["because"] if earlier >= first]}
        for step in steps[first:]
    ]


def _mermaid(text: str) -> str:
    """Escape what Mermaid's labels take for markup; its entities are written with # (Mermaid, "Entity codes")."""
    return re.sub(r'[&<>"#;]', lambda match: f"#{ord(match[0])};", text)
