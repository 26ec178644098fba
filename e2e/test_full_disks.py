"""A disk that fills up under a store in the middle of a copy, and quotas."""

import errno
import os
from pathlib import Path

import pytest

from cloud.base import always, eventually, run
from cloud.nginx import Nginx
from cloud.sshd import Sshd
from places import S3, Directory, Swift, rsync, sftp

MiB = 1 << 20
DISK = 8 * MiB


@pytest.fixture
def small_disk():
    """A function that puts a small disk in a directory's place."""
    mounted: list[Path] = []

    def mount(path: Path) -> None:
        if os.getuid() != 0:
            pytest.fail("only root may mount the small disk: run the tests as root")
        owner, mode = path.stat(), path.stat().st_mode & 0o7777
        options = f"size={DISK},uid={owner.st_uid},gid={owner.st_gid},mode={mode:o}"
        run(["mount", "-t", "tmpfs", "-o", options, "mimeo-e2e", path])
        mounted.append(path)

    yield mount
    for path in mounted:
        run(["umount", "--lazy", path])


def fill(path: Path) -> Path:
    """Takes all the room that is left there."""
    filler = path / ".filler"
    with filler.open("wb", buffering=0) as out:
        try:
            while out.write(bytes(64 << 10)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
    return filler


@pytest.fixture
def small_nginx(cloud, small_disk):
    """An nginx whose objects and uploads are on one small disk. Over two disks it copies, and where that breaks off it
    leaves what it has under a name that nobody knows."""
    parent = cloud.dir / "runs" / f"small-{os.urandom(3).hex()}"
    parent.mkdir(parents=True)
    small_disk(parent)
    server = Nginx(parent, "nginx", cloud.fault_ports[0])
    server.start()
    yield server
    server.stop()


def test_a_disk_fills_up_in_the_middle_of_copies(cloud, mimeo, images, exported, small_disk, small_nginx):
    """A directory's and Apache's are said to be full; nginx has no word for it but 500. Nothing half-written is ever
    registered, another store is not held up, and the copies are made when there is room."""
    directory = mimeo.dir / "images"
    directory.mkdir()
    web = {"nginx": small_nginx, "apache": cloud.apache, "other": cloud.nginx[1]}
    mimeo.stores = {
        "file": Directory({"type": "file", "path": str(directory), "read_url": exported(directory).url}, directory),
        **{name: Directory({"type": "http", "url": server.url}, server.objects) for name, server in web.items()},
    }
    full = {"file": {"store-full"}, "apache": {"store-full"}, "nginx": {"store-error", "store-full"}}
    disks = [mimeo.stores[name].path for name in full]
    for name in ("file", "apache"):
        small_disk(mimeo.stores[name].path)
    slow = {f"stores.{name}": {"bandwidth": "2MiB/s"} for name in full}
    mimeo.serve(**slow)
    data = os.urandom(6 * MiB)
    image = images.create(data)
    eventually(lambda: mimeo.stores["file"].written(image) >= MiB, 30, "the copies are under way")
    fillers = [fill(disk) for disk in disks]
    for store, codes in full.items():
        mimeo.wait_reason(image, store, codes)
    mimeo.wait_registered(image, stores=["other"])

    def nothing_but_the_other() -> bool:
        return set(images.mimeo_locations(image)) == {"other"}

    always(nothing_but_the_other, 3, "nothing is registered where there is no room")
    for filler in fillers:
        filler.unlink()
    mimeo.wait_registered(image)
    locations = images.mimeo_locations(image)
    for store, place in mimeo.stores.items():
        name = locations[store].rsplit("/", 1)[1]
        assert place.read(name) == data
        eventually(lambda p=place, n=name: p.left() == [n], 60, f"{store} has the registered object and nothing else")


@pytest.fixture
def small_sshd(cloud, small_disk):
    """An SSH server whose directory is a small disk: what is mounted later it does not see."""
    server = Sshd(cloud.dir / "runs" / f"small-{os.urandom(3).hex()}")
    server.prepare()
    small_disk(server.objects)
    server.start()
    yield server
    server.stop()


def test_servers_that_take_no_more(storage, mimeo, images, rsyncd, small_sshd, exported, small_disk, tmp_path):
    """A bucket and a container with quotas, a directory behind SSH and a module of rsync's daemon on small disks: each says
    that it is full, keeps nothing half-written, and has its copy when there is room."""
    gateway = storage.gateway
    small_disk(rsyncd.objects)
    mimeo.stores = {
        "s3": S3(storage), "swift": Swift(storage), "sftp": sftp(small_sshd, exported(small_sshd.objects)),
        "rsync": rsync(rsyncd, exported(rsyncd.objects), tmp_path / "spool"), **mimeo.stores,
    }
    full = ["s3", "swift", "sftp", "rsync"]
    gateway.set_quotas(DISK)
    try:
        # What was given up in mid-copy is removed after this time.
        mimeo.serve(store_defaults={"timeout": "5s"}, retry={"first": "10m", "max": "10m"})
        data = os.urandom(DISK + MiB)
        image = images.create(data)
        for store in full:
            mimeo.wait_reason(image, store, {"store-full"})
        mimeo.wait_registered(image, stores=[store for store in mimeo.stores if store not in full])
        for store in full:
            eventually(lambda store=store: not mimeo.stores[store].left(), 60, f"nothing is left at {store}")
    finally:
        gateway.set_quotas(None)
    for disk in (small_sshd.objects, rsyncd.objects):
        run(["mount", "-o", f"remount,size={4 * DISK}", disk])
    assert mimeo.run("replicate", image)[0] == 0
    mimeo.wait_registered(image)
    for store in full:
        [name] = mimeo.stores[store].left()
        assert mimeo.stores[store].read(name) == data


def test_a_copy_that_would_not_fit_is_not_begun(mimeo, images, exported, small_disk):
    """The room is asked for before a large image's first byte; when there is enough, `replicate` has it copied."""
    directory = mimeo.dir / "images"
    directory.mkdir()
    small_disk(directory)
    mimeo.stores["file"] = Directory({"type": "file", "path": str(directory), "read_url": exported(directory).url}, directory)
    mimeo.serve()
    data = os.urandom(MiB) * 65
    image = images.create(data)
    mimeo.wait_reason(image, "file", {"store-full"})
    assert f"and this copy needs {len(data)}" in mimeo.replica(image, "file")["reason"]["message"]
    assert list(directory.iterdir()) == [], "not a byte was written"
    mimeo.wait_registered(image, stores=[store for store in mimeo.stores if store != "file"])
    run(["mount", "-o", f"remount,size={2 * len(data)}", directory])
    assert mimeo.run("replicate", image)[0] == 0
    mimeo.wait_registered(image)
    assert mimeo.stores["file"].read(images.mimeo_locations(image)["file"].rsplit("/", 1)[1]) == data
