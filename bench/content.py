"""An image's bytes: no two MiB alike, none of them zeros, and made so quickly that an upload never waits for them."""

import os
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
_BLOCK = os.urandom(MIB - 8)


def stream(mib: int) -> Iterator[bytes]:
    for number in range(mib):
        yield number.to_bytes(8, "little") + _BLOCK


def write(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        file.writelines(stream(mib))
    return path
