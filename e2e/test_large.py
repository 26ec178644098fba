"""An object of 5 GiB and a byte at a store of each kind: beyond what one request may carry to S3 or Swift, and beyond what
32 bits count. Run by itself, with 12 GiB of room in memory: `.cache/venv/bin/pytest e2e -m large`."""

import shutil

import pytest

from cloud.keystone import PROJECTS, SECRET
from test_conformance import conforms, files

SIZE = (5 << 30) + 1
pytestmark = [pytest.mark.large, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def room(cloud, tmp_path):
    for place, needed in ((cloud.dir, 2 * SIZE), (tmp_path, SIZE)):
        free = shutil.disk_usage(place).free
        assert free > needed, f"{place} has {free >> 30} GiB of room: make it {(needed >> 30) + 1} GiB"


def large(*arguments, **variables: str) -> None:
    conforms("large", *arguments, timeout=800, **variables)


@pytest.mark.parametrize("name", ["nginx1", "apache"])
def test_http(cloud, name):
    server = next(server for server in cloud.web if server.name == name)
    large("http", server.url)
    assert not list(server.objects.iterdir())


def test_file(cloud, exported):
    directory = cloud.dir / "large"
    directory.mkdir()
    large("file", directory, exported(directory).url)
    assert files(directory) == []


def test_rbd(storage):
    large("rbd", storage.ceph.conf, "mimeo", storage.ceph.pool)
    assert (storage.ceph.images(), storage.ceph.trash()) == ([], [])


def test_s3(storage):
    gateway = storage.gateway
    keys = {"AWS_ACCESS_KEY_ID": gateway.access_key, "AWS_SECRET_ACCESS_KEY": gateway.secret_key}
    large("s3", gateway.url, gateway.bucket, **keys)
    assert (gateway.keys(), gateway.uploads()) == ([], [])


def test_swift(storage):
    gateway = storage.gateway
    large("swift", storage.keystone.url, "mimeo", gateway.container, PROJECTS["mimeo"], STORE_PASSWORD=SECRET)
    assert gateway.objects() == []


def test_sftp(sshd, exported):
    where = (sshd.host, sshd.port, sshd.user, sshd.objects, exported(sshd.objects).url, sshd.known_hosts)
    large("sftp", *where, sshd.key)
    assert files(sshd.objects) == []


def test_rsync(rsyncd, exported, tmp_path):
    """By a spool on the disk."""
    large("rsync", rsyncd.url, exported(rsyncd.objects).url, tmp_path, STORE_PASSWORD=rsyncd.password)
    assert (files(rsyncd.objects), files(tmp_path)) == ([], [])
