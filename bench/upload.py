"""Uploads to Glance that cost the machine little: large pieces, straight from a file or a generator to the socket."""

import http.client
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from cloud.images import Images

from .content import MIB

SILENCE = 300  # seconds


def put(images: Images, image: str, what: str, mib: int, content: Path | Iterable[bytes]) -> None:
    """`what` is `file` or `stage`. Returns when Glance has answered 204."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return put(images, image, what, mib, file)
    address = urlsplit(images.glance.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=SILENCE, blocksize=MIB)
    headers = {
        "X-Auth-Token": images.keystone.token(images.user).value, "Content-Type": "application/octet-stream",
        "Content-Length": str(mib * MIB),
    }
    try:
        connection.request("PUT", f"/v2/images/{image}/{what}", body=content, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 204:
        raise RuntimeError(f"Glance answers {answer.status} to the upload: {text[:500]!r}")


def create(images: Images, name: str, mib: int, content: Path | Iterable[bytes]) -> str:
    image = images.record(name)
    put(images, image, "file", mib, content)
    return image
