"""An image made with the tools that people use ends with a proven, registered copy on every store."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud.base import always, eventually
from cloud.glance import FILE_STORES

MiB = 1 << 20
IMAGE_OPTIONS = ("--disk-format", "raw", "--container-format", "bare")


def assert_survives_loss_of_glances_own_store(cloud, clients, image: str, data: bytes, tmp_path) -> None:
    """Glance's own files are gone; what `openstack image save` gives can only come from Mimeo's copies."""
    cloud.glance.take_away(image)
    saved = tmp_path / "saved.raw"
    clients.openstack("image", "save", "--file", saved, image)
    assert saved.read_bytes() == data


@pytest.mark.parametrize("size", [1, MiB, 300 * MiB], ids=["1B", "1MiB", "300MiB"])
def test_openstack_image_create_file(cloud, mimeo, clients, file_of, tmp_path, size):
    """`openstack image create --file`: one location per store (three nginx, one Apache), equal bytes on each, and
    the image is readable when Glance's own store is lost."""
    mimeo.use(*cloud.web)
    mimeo.serve()
    data = os.urandom(min(size, MiB)) * max(1, size // MiB)
    made = clients.openstack_json("image", "create", "--file", file_of(data), *IMAGE_OPTIONS, "created")
    mimeo.wait_registered(made["id"], timeout=120)
    mimeo.assert_complete(made["id"], data)
    assert_survives_loss_of_glances_own_store(cloud, clients, made["id"], data, tmp_path)


def import_with(clients, *arguments) -> str:
    """`glance image-create-via-import`; the image's id from the table that it prints."""
    table = clients.glance("image-create-via-import", *IMAGE_OPTIONS, *arguments)
    return next(line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| id "))


def test_glance_direct_import(cloud, mimeo, clients, images, file_of, tmp_path):
    """`glance image-create-via-import` of a local file: complete, although no image.upload event is sent."""
    mimeo.serve()
    data = os.urandom(3 * MiB)
    image = import_with(clients, "--import-method", "glance-direct", "--file", file_of(data), "--name", "direct")
    images.wait_status(image, "active")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert_survives_loss_of_glances_own_store(cloud, clients, image, data, tmp_path)


def test_web_download_import(cloud, mimeo, clients, images, tmp_path):
    """`glance image-create-via-import` from a URL."""
    mimeo.serve()
    data = os.urandom(3 * MiB)
    (cloud.nginx[0].data / "source.raw").write_bytes(data)
    url = f"http://127.0.0.1:{cloud.nginx[0].port}/source.raw"
    image = import_with(clients, "--import-method", "web-download", "--uri", url, "--name", "downloaded")
    images.wait_status(image, "active")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert_survives_loss_of_glances_own_store(cloud, clients, image, data, tmp_path)


def test_parallel_import_to_several_glance_stores(cloud, mimeo, clients, images, file_of, tmp_path):
    """An import to three of Glance's stores at once: its locations and Mimeo's stand side by side."""
    mimeo.serve()
    data = os.urandom(8 * MiB)
    image = import_with(
        clients, "--import-method", "glance-direct", "--file", file_of(data), "--name", "parallel",
        "--stores", ",".join(FILE_STORES),
    )
    eventually(lambda: set(FILE_STORES) <= images.glance_stores(image), 60, "Glance has it in all")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    glances_own = [loc for loc in images.show(image)["locations"] if loc["url"].startswith("file:")]
    assert len(glances_own) == len(FILE_STORES)
    assert_survives_loss_of_glances_own_store(cloud, clients, image, data, tmp_path)


def test_empty_image_is_said_once_and_left(cloud, mimeo, images):
    """Glance takes no location of size 0: the status says so, nothing is written and nothing is tried again."""
    mimeo.serve()
    image = images.create(b"")
    for store in mimeo.stores:
        mimeo.wait_reason(image, store, {"empty-image"})
    assert all(replica["next_try"] is None for replica in mimeo.status(image)["replicas"])
    code, _, _ = mimeo.run("replicate", image, "--wait", "--timeout", "30s")
    assert code == 1, "waiting cannot help, and `--wait` says so at once"
    # Longer than two scans: a second look must not find something to do.
    always(lambda: not any(server.requests("PUT", image) for server in cloud.nginx), 5, "nothing is written")
    assert mimeo.reason(image, "http1") == "empty-image"


def test_fifty_images_at_once_from_eight_clients(cloud, mimeo, images):
    """Every one complete, none twice, and the memory stays within its bound however many there are."""
    mimeo.serve()
    data = {n: os.urandom(2 * MiB + n) for n in range(50)}
    with ThreadPoolExecutor(8) as clients:
        made = dict(zip(data, clients.map(lambda n: images.create(data[n], f"one-of-fifty-{n}"), data), strict=True))
    highest = 0
    for image in made.values():
        highest = max(highest, mimeo.memory())
        mimeo.wait_registered(image, timeout=180)
    for n, image in made.items():
        mimeo.assert_complete(image, data[n])
        for server in cloud.nginx:
            puts = server.requests("PUT", image)
            assert len(puts) == 1, f"written more than once: {puts}"
    assert max(highest, mimeo.memory()) < 128 * MiB


def test_a_copy_is_read_once_and_staged_nowhere(cloud, mimeo, images):
    """One read of the source for four stores, and no file of Mimeo's own but the ledger."""
    mimeo.use(*cloud.web)
    mimeo.serve()
    data = os.urandom(20 * MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    mimeo.assert_read_once(image)
    written = sum(path.stat().st_size for path in mimeo.dir.rglob("*") if path.is_file())
    assert written < len(data), "the image was staged on disk"
