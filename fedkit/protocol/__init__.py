"""The bodies of every mesh operation, as strict schemas: what `docs/protocol.md` describes stanza by stanza.

More than one component speaks each of these, so they stand here and not in a component. Fields may be added with a
default, none renamed (DESIGN §4.8).
"""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """Base of every message body: unknown keys are refused, values are not coerced between types."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Empty(Body):
    """A body that says nothing, and the plain "done" answer."""
