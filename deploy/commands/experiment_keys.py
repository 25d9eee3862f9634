"""Where the keys of a person's experiments are kept: beside what `fed login` stored, or where the person wants it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.commands.client import credentials_file
from deploy.commands.errors import UnusableFile
from deploy.commands.output import say

Keep = Callable[[str, str], None]  # takes an experiment's id and its key


@contextmanager
def new_key(wanted: Path | None) -> Iterator[Keep]:
    """A place for the key of an experiment that is to be made, found before anything is asked for; raises `UnusableFile`.

    Without `wanted` it is named after the experiment. The file is gone again if none was made.
    """
    path = wanted or _kept() / f".new-{os.getpid()}.key"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise UnusableFile(f"{path} cannot be made: {error.strerror}.") from error

    def keep(experiment_id: str, text: str) -> None:
        path.write_text(text)
        kept = path if wanted is not None else path.rename(_place(experiment_id))
        say(f"The experiment's key is in {kept}; `fed experiment credentials` opens its nodes with it.")

    try:
        yield keep
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


def read_key(path: Path | None, experiment_id: str) -> bytes:
    """An experiment's key, from where it was kept; raises `UnusableFile` or `UnusableKey`."""
    from fedkit.identity.keys import PrivateKey

    path = path or _place(experiment_id)
    try:
        PrivateKey.load(path)  # refuses a file that others can read
        return path.read_bytes()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}. Name the experiment's key by --key.") from error


def _kept() -> Path:
    return credentials_file().with_name("experiments")


def _place(experiment_id: str) -> Path:
    return _kept() / f"{experiment_id}.key"
