"""How the reverse tunnel server refuses: the family `tunnel.*`, the same code over the mesh and in what ssh shows."""

from __future__ import annotations

from fedkit.errors import Exit, FedError


class TunnelRefusal(FedError):
    """A definite no."""

    code = "tunnel.refused"
    http = 403
    exit = Exit.REFUSED


class NotAController(TunnelRefusal):
    """The sender is not among those whom this server's operator lets grant leases."""

    code = "tunnel.not_a_controller"


class UnknownLease(TunnelRefusal):
    """There is no such lease (any more), or it is another controller's."""

    code = "tunnel.unknown_lease"
    http = 404


class AlreadyExpired(TunnelRefusal):
    """The lease would end before it began."""

    code = "tunnel.already_expired"
    http = 400


class UnusableMachineKey(TunnelRefusal):
    """The key is not an OpenSSH public key that this server accepts."""

    code = "tunnel.unusable_key"
    http = 400
    exit = Exit.UNUSABLE_INPUT


class KeyInUse(TunnelRefusal):
    """The key already belongs to another lease; a key names one machine."""

    code = "tunnel.key_in_use"
    http = 409


class NoPort(TunnelRefusal):
    """Every port of the server belongs to some lease."""

    code = "tunnel.no_port"
    http = 503


class PortLimit(TunnelRefusal):
    """The lease already holds as many ports as it was granted."""

    code = "tunnel.port_limit"
    http = 409


class ForeignPort(TunnelRefusal):
    """The machine asked for a port that does not belong to its lease."""

    code = "tunnel.foreign_port"


class BadName(TunnelRefusal):
    """A port's name is a DNS label: lower-case letters, digits and hyphens."""

    code = "tunnel.bad_name"
    http = 400
    exit = Exit.UNUSABLE_INPUT


class PortBusy(TunnelRefusal):
    """The port is reserved for the lease, but another process of the host listens on it."""

    code = "tunnel.port_busy"
    http = 503


class OnlyTunnels(TunnelRefusal):
    """Something else than `ssh -R` was asked for: a shell, a command, a forward inwards."""

    code = "tunnel.only_tunnels"


class TooManyConnections(TunnelRefusal):
    """A machine holds more connections than its lease's ports can need."""

    code = "tunnel.too_many_connections"
    http = 429
