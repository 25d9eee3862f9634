"""A proof, or what is missing for one, as people see it: text, Mermaid, or a picture (SVG).

All take the form in which proofs travel and are kept, `Proof.as_json()` and `Refusal.as_json()`, so that a stored decision is drawn like a
fresh one. `names` are what principals call themselves; a name never stands alone but with the first digits of its fedid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Steps = Sequence[Mapping[str, Any]]
Names = Mapping[str, str]

DRAWN_LIMIT = 200  # steps; no picture of more is of use to anybody
_SHORT = 8  # digits of a fedid
_NAME_LIMIT = 32  # characters
_NOT_IN_NAMES = re.compile(r"[^\w@+-]")
_FEDID = re.compile(r"\b[0-9a-f]{40}\b")

_CHARACTER, _LINE = 7.2, 18  # pixels of the picture's type
_PADDING, _GAP = 12, 36


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


def proof_svg(steps: Steps, names: Names) -> str:
    """Draw a proof as a picture: a box for each step, above those that rest on it."""
    drawn = _drawn(steps)
    texts = [(_claim(step, names), f"by {name_all(step['statement'], names)}") for step in drawn]
    widths = [max(map(len, lines)) * _CHARACTER + 2 * _PADDING for lines in texts]
    places = _places([step["because"] for step in drawn], widths)
    height = 2 * _LINE + _PADDING
    parts = []
    for index, step in enumerate(drawn):
        x, y = places[index]
        for earlier in step["because"]:
            above_x, above_y = places[earlier]
            parts.append(
                f'<path d="M{above_x + widths[earlier] / 2:.0f} {above_y + height} L{x + widths[index] / 2:.0f} {y}"'
                ' class="edge" marker-end="url(#tip)"/>'
            )
    for (x, y), width, (claim, reason) in zip(places, widths, texts, strict=True):
        parts.append(f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="6"/>')
        for row, (text, kind) in enumerate(((claim, "claim"), (reason, "reason")), 1):
            parts.append(f'<text x="{x + _PADDING:.0f}" y="{y + row * _LINE}" class="{kind}">{escape(text)}</text>')
    right = max((x + width for (x, _), width in zip(places, widths, strict=True)), default=0) + _PADDING
    bottom = max((y for _, y in places), default=0) + height + _PADDING
    return _SVG.format(width=round(right), height=bottom, parts="\n".join(parts))


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<style>
rect {{ fill: #f6f8fa; stroke: #57606a; }} text {{ font: 12px monospace; fill: #1f2328; }} .claim {{ font-weight: bold; }}
.reason {{ fill: #57606a; }} .edge {{ stroke: #57606a; fill: none; }}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 L8 4 L0 8 z"/></marker></defs>
{parts}
</svg>
"""


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


def _places(because: Sequence[Sequence[int]], widths: Sequence[float]) -> list[tuple[float, int]]:
    """Put each step in the row above the highest that rests on it, side by side there."""
    depths = [0] * len(because)
    for index in reversed(range(len(because))):
        for earlier in because[index]:
            depths[earlier] = max(depths[earlier], depths[index] + 1)
    deepest = max(depths, default=0)
    ends: dict[int, float] = {}
    places = []
    for depth, width in zip(depths, widths, strict=True):
        x = ends.get(depth, float(_PADDING))
        ends[depth] = x + width + _PADDING
        places.append((x, _PADDING + (deepest - depth) * (2 * _LINE + _PADDING + _GAP)))
    return places


def _mermaid(text: str) -> str:
    """Escape what Mermaid's labels take for markup; its entities are written with # (Mermaid, "Entity codes")."""
    return re.sub(r'[&<>"#;]', lambda match: f"#{ord(match[0])};", text)
