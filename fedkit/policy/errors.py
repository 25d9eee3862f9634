"""The errors of this room: what was given cannot be used. That something cannot be proved is no error but an answer."""

from __future__ import annotations

from fedkit.errors import InputError


class BadCredential(InputError):
    """A credential that is malformed, not signed by its head's principal, or in a form that is not accepted."""

    code = "policy.bad_credential"
