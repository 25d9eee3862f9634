"""recipe to come"""

from pathlib import Path


class Debian:
    name = "debian"
    disk_format = "qcow2"
    command_line = ""
    user_data = "cloud-init"
    sources: tuple[Path, ...] = (Path(__file__),)

    def packages(self) -> list[str]:
        return []

    def make(self, packages: list[str], scratch: Path, into: Path) -> None: ...
