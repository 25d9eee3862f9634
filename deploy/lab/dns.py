"""The DNS of the lab's internet: A records, and SRV records for server-to-server XMPP (RFC 6120 §3.2.1)."""

from __future__ import annotations

from deploy.lab.topology import DNS_ADDRESS, S2S_PORT, Plan

RESOLV_CONF = f"nameserver {DNS_ADDRESS}\n"


def dnsmasq_config(plan: Plan) -> str:
    """Configuration of the one name server; `host-record` and not `address`, which denies AAAA as NXDOMAIN."""
    lines = ["no-resolv", "no-hosts", "bind-interfaces", f"listen-address={DNS_ADDRESS}", "local=/test/", "pid-file="]
    for site in plan.sites:
        lines.append(f"host-record=xmpp.{site.domain},{site.public}")
        lines.append(f"host-record={site.domain},{site.public}")
        for component in site.components:
            lines.append(f"host-record={component.domain},{site.public}")
            lines.append(f"srv-host=_xmpp-server._tcp.{component.domain},xmpp.{site.domain},{S2S_PORT}")
    return "\n".join(lines) + "\n"
