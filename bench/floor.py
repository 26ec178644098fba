"""The floor: what nobody can do without who brings proven bytes to N places.

The slower of two things: hashing the image once with its own algorithm (SHA-512, openssl, one core), and N plain
uploads of the bytes at once (curl). Both read a file in memory. The start of the programs counts: for an image of one
MiB, that is most of it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from .processes import Usage, run_at_once


@dataclass
class Floor:
    hashing: Usage
    uploads: Usage

    @property
    def seconds(self) -> float:
        return max(self.hashing.seconds, self.uploads.seconds)


def floor(files: list[Path], servers: list) -> Floor:
    """Of several images: all to each server, one connection per image and server; hashed on all cores."""
    cores = os.cpu_count() or 1
    shares = [share for share in (files[core::cores] for core in range(cores)) if share]
    hashing = run_at_once(*[["openssl", "dgst", "-sha512", *share] for share in shares])
    try:
        return Floor(hashing, upload_at_once(files, servers))
    finally:
        for server in servers:
            for path in server.objects.glob("floor-*"):
                path.unlink()


def upload_at_once(files: list[Path], servers: list) -> Usage:
    """One curl for each file and server; the names begin with `floor-`."""
    return run_at_once(*[
        ["curl", "--silent", "--show-error", "--fail", "--header", "Expect:", "--upload-file", file,
         f"{server.url}floor-{number}"]
        for server in servers for number, file in enumerate(files)
    ])
