"""The errors of this room: what was given cannot be used. That something cannot be proved is no error but an answer."""

from __future__ import annotations

from fedkit.errors import Exit, InputError


class BadCredential(InputError):
    """A credential that is malformed, not signed by its head's principal, or in a form that is not accepted."""

    code = "policy.bad_credential"


class MissingIssuer(BadCredential):
    """A credential that does not carry its issuer's key, and whose issuer is not among the identities given."""

    code = "policy.missing_issuer"


class WeakSignature(BadCredential):
    """A signature with SHA-1, where no setting allows those of old files."""

    code = "policy.weak_signature"


class Expired(BadCredential):
    """A credential whose term is over."""

    code = "policy.expired"


class NotYetValid(BadCredential):
    """A credential whose term has not begun."""

    code = "policy.not_yet_valid"


class NotExpressible(InputError):
    """Something that the form of credential asked for cannot say, or that this key cannot sign."""

    code = "policy.not_expressible"


class UnusableIdentity(InputError):
    """An identity file without a certificate or public key, or whose private key belongs to another."""

    code = "policy.unusable_identity"


class NotSpeakingFor(InputError):
    """A speaks-for credential that does not let this tool speak for this user."""

    code = "policy.not_speaking_for"
    http = 403
    exit = Exit.REFUSED


class BadRevocationList(InputError):
    """A revocation list that is malformed, too long, or whose signature is wrong."""

    code = "policy.bad_revocation_list"


class TwoKeys(InputError):
    """Two keys with one fedid: which of them speaks for it cannot be told, so neither is believed newly."""

    code = "policy.two_keys"
    http = 403
