"""A site's Prosody made hostile, and honest again (`mod_hostile.lua` says what it can do)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deploy.lab.client import Lab
from deploy.lab.person import until
from deploy.lab.places import PROSODY_MODULES, RUN, SOURCES
from tests.lab.journal import WHOLE_LOG

MODULES = SOURCES / "tests/lab/hostile"


class HostileServer:
    """The XMPP server of `site`, which does to its member's requests and answers what it is told."""

    def __init__(self, lab: Lab, site: str) -> None:
        self._lab = lab
        self._place = RUN / site / "xmpp"
        self._domain = lab.plan.site(site).component("fm").domain
        self._beside = [c.domain for c in lab.plan.site(site).components if c.kind == "rendezvous"]
        self.role = f"{site}/xmpp"

    def told(self, deed: str) -> None:
        """Begin to do this, and no longer what was told before."""
        script = 'echo "$1" > "$2.new" && chmod 644 "$2.new" && mv "$2.new" "$2"'
        self._lab.run("internet", ["sh", "-c", script, "sh", deed, str(self._place / "hostile")])

    def honest(self) -> None:
        """Only carry what it is given."""
        self.told("honest")

    def has(self, deed: str, operation: str) -> None:
        """Wait until it has done this to a request or an answer of that operation."""
        until(lambda: f"hostile: {deed} {operation}" in self._lab.log(self.role, WHOLE_LOG), f"the server did {deed}")

    @contextmanager
    def in_place(self) -> Iterator[HostileServer]:
        """Put the module into the server's configuration; take it out again at the end."""
        config = self._place / "prosody.cfg.lua"
        edits = [f's|^plugin_paths = .*|plugin_paths = {{ "{PROSODY_MODULES}", "{MODULES}" }}|']
        for domain in (self._domain, *self._beside):
            edits += [
                f'/^Component "{domain}"/,/modules_enabled/s|modules_enabled = {{|&"hostile", |',
                f'/^Component "{domain}"/a hostile_orders = "{self._place}/hostile"; hostile_victim = "{self._domain}"',
            ]
        script = [part for edit in edits for part in ("-e", edit)]
        self.honest()
        self._lab.run("internet", ["cp", "-p", str(config), f"{config}.honest"])
        try:
            self._lab.run("internet", ["sed", "-i", *script, str(config)])
            # sed(1) makes a new file, which must be the server's again.
            self._lab.run("internet", ["chown", f"--reference={config}.honest", str(config)])
            self._restart()
            yield self
        finally:
            self._lab.run("internet", ["mv", f"{config}.honest", str(config)])
            self._restart()

    def _restart(self) -> None:
        """Restart the server and wait for the closed sites, which only come by themselves."""
        before = len(self._lab.log(self.role, WHOLE_LOG))
        self._lab.restart(self.role)
        for site in self._lab.plan.sites:
            if site.closed:
                came = f"{site.component('fm').domain}->{self._domain} complete"
                until(lambda text=came: text in self._lab.log(self.role, WHOLE_LOG)[before:], f"{came}")  # type: ignore[misc]
