"""The same targets under atheris, which follows the code's coverage: python -m tests.fuzz.guided TARGET [libFuzzer options].

atheris is no dependency of the project; install it beside it where you want to search long.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path


def main(target: str, options: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["fedkit.policy", "fedkit.identity", "signxml"]):
        credentials = importlib.import_module("tests.fuzz.credentials")
    mutation = importlib.import_module("tests.fuzz.mutation")
    place = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
    (place / "corpus").mkdir()
    for number, seed in enumerate(credentials.seeds(target)):
        (place / "corpus" / f"seed-{number}").write_bytes(seed)
    (place / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in mutation.WORDS))
    fixed = [f"-dict={place / 'words'}", "-max_len=16384", f"-artifact_prefix={place}/"]
    arguments = [sys.argv[0], *fixed, *options, str(place / "corpus")]
    atheris.Setup(arguments, lambda data: credentials.attempt(target, data))
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(rf"\x{octet:02x}" for octet in word)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
