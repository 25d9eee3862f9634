"""`python -m deploy.image.guest tiny|portal|debian [--out FOLDER]`: builds an image if it is not there, and says where its parts are."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from deploy.image.guest.build import RECIPES, GuestImage, build
from deploy.image.packages import ImageError


def main(arguments: list[str]) -> int:
    """Print the image as JSON; the exit status is that of `fed`."""
    parser = argparse.ArgumentParser(prog="python -m deploy.image.guest", description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, help="copy kernel, initrd and disk into this folder")
    options = parser.parse_args(arguments)
    try:
        image = build(options.name)
    except ImageError as error:
        print(error.message, file=sys.stderr)
        return int(error.exit)
    if options.out:
        image = _copied(image, options.out)
    paths = {part: str(getattr(image, part)) for part in ("kernel", "initrd", "disk")}
    words = {part: getattr(image, part) for part in ("name", "disk_format", "command_line", "user_data")}
    print(json.dumps(words | paths, indent=2))
    return 0


def _copied(image: GuestImage, folder: Path) -> GuestImage:
    folder.mkdir(parents=True, exist_ok=True)
    copy = replace(image, folder=folder.absolute())
    for part in ("kernel", "initrd", "disk"):
        shutil.copyfile(getattr(image, part), getattr(copy, part))
    return copy


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
