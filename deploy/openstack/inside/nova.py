"""All of Nova in one process: API, conductor, scheduler and compute, whose messages stay inside (`fake://`).

    python -m deploy.openstack.inside.nova CONFIG ADDRESS PORT

It listens only once its compute host is known to the scheduler and counted as alive; else the first machine ordered after a
start would find no valid host.
"""

# OpenStack is not in the environment that checks this code.
# mypy: disable-error-code="import-not-found,import-untyped,misc"

from __future__ import annotations

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

import sys  # noqa: E402

import os_vif  # noqa: E402
from nova import context, objects, service  # noqa: E402
from nova.api.openstack import wsgi_app  # noqa: E402
from nova.objects.host_mapping import discover_hosts  # noqa: E402
from nova.virt import fake  # noqa: E402

from deploy.openstack.inside.compute import LastingFakeDriver  # noqa: E402
from deploy.openstack.inside.serve import serve, whole_or_nothing  # noqa: E402

SERVICES = {  # with their topics
    "nova-conductor": {"topic": "conductor"},
    "nova-scheduler": {"topic": "scheduler"},
    "nova-compute": {"topic": "compute", "topic_alt": "compute-alt"},
}


def main() -> None:
    """Start everything and serve."""
    config, address, port = sys.argv[1:]
    sys.argv = ["nova", "--config-file", config]
    application = wsgi_app.init_application("osapi_compute", "nova-api")
    objects.register_all()
    os_vif.initialize()
    fake.LastingFakeDriver = LastingFakeDriver  # Nova takes drivers from its own package only
    for binary, topics in SERVICES.items():
        started = service.Service.create(binary=binary, **topics)
        started.start()
        started.service_ref.report_count += 1  # a sign of life now, not after the first interval
        started.service_ref.save()
    discover_hosts(context.get_admin_context())
    serve(application, address, int(port))


if __name__ == "__main__":
    whole_or_nothing(main)
