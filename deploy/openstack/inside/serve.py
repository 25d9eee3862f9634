"""Serves one API: `python -m deploy.openstack.inside.serve MODULE ADDRESS PORT`, where MODULE has a WSGI `application`.

It listens once the application is loaded, so an open port means that it answers.
"""

# OpenStack is not in the environment that checks this code.
# mypy: disable-error-code="import-not-found,import-untyped,misc"

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from waitress import serve as waitress

THREADS = 8
CONNECTIONS = 1000  # that may be open at once; beyond, clients wait until they give up


def serve(application: Any, address: str, port: int) -> None:
    """Answer until killed. OpenStack's clients say who they are by headers, so none is removed."""
    waitress(
        application,
        host=address,
        port=port,
        threads=THREADS,
        connection_limit=CONNECTIONS,
        ident=None,
        clear_untrusted_proxy_headers=False,
    )


def whole_or_nothing(main: Callable[[], None]) -> None:
    """Run `main`, and end the process when that ends; threads of services would keep a part of it alive."""
    try:
        main()
    except BaseException:  # SystemExit as well: nothing may be left
        traceback.print_exc()
    os._exit(1)


def main() -> None:
    """Load and serve."""
    module, address, port = sys.argv[1:]
    sys.argv = [module]  # services parse it themselves
    serve(importlib.import_module(module).application, address, int(port))


if __name__ == "__main__":
    main()
