"""All of Cinder in one process: API, scheduler and volume, whose messages stay inside (`fake://`).

    python -m deploy.openstack.inside.cinder CONFIG ADDRESS PORT

Its services still need eventlet (release 29 takes messages in no other way), so its API is served by that as well.
"""

# OpenStack is not in the environment that checks this code.
# mypy: disable-error-code="import-not-found,import-untyped,misc"

from __future__ import annotations

from cinder import monkey_patch

monkey_patch.patch()  # before anything else of Cinder

import sys  # noqa: E402

import eventlet  # noqa: E402
import eventlet.wsgi  # noqa: E402
import os_brick  # noqa: E402
from cinder import service  # noqa: E402
from cinder.wsgi import wsgi  # noqa: E402
from oslo_config import cfg  # noqa: E402

from deploy.openstack.inside.serve import whole_or_nothing  # noqa: E402


class Service(service.Service):
    """A service that is not alone in its process: Cinder keeps "the" service's id at the class."""

    def report_state(self) -> None:
        """Say that this one is alive."""
        service.Service.service_id = self.origin_service_id
        super().report_state()


def main() -> None:
    """Start everything and serve."""
    config, address, port = sys.argv[1:]
    sys.argv = ["cinder", "--config-file", config]
    application = wsgi.initialize_application()
    os_brick.setup(cfg.CONF)
    backend = cfg.CONF.enabled_backends[0]
    volume = {"host": f"{cfg.CONF.host}@{backend}", "service_name": backend, "coordination": True}
    # The scheduler asks at its start what there is, and waits a minute for an answer.
    for binary, options in (("cinder-volume", volume), ("cinder-scheduler", {})):
        started = Service.create(binary=binary, **options)
        started.start()
        started.report_state()  # a sign of life now, not after the first interval
    eventlet.wsgi.server(eventlet.listen((address, int(port))), application, log_output=False)


if __name__ == "__main__":
    whole_or_nothing(main)
