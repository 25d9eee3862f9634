"""Policies of members in tests, as `policy.toml` has them."""

from __future__ import annotations

from typing import Any

from deploy.lab.components import to_toml

NOTHING = ""


def rule(name: str, *who: str, **fields: Any) -> str:
    """One rule; it lends everything unless told otherwise."""
    return to_toml({"rule": [{"name": name, "who": list(who), "may": ["*"]} | fields]}) + "\n"


EVERYTHING = rule("everybody", "*/*/*")
