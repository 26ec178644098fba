"""The real servers pass the suites that the fakes pass: what a unit test finds with a fake holds for the real thing.
Each suite leaves nothing behind, and neither do the copies in it that are broken off."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from cloud.apache import Apache
from cloud.keystone import PROJECTS, SECRET
from cloud.nginx import Nginx
from mimeo import ROOT

PROGRAM = Path(os.environ.get("MIMEO_CONFORMANCE", ROOT / "target/debug/examples/conformance"))


def conforms(*arguments, timeout: float = 180, **variables: str) -> str:
    """What the program said."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "MIMEO_", "AWS_"))}
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], env={**own, **variables, "RUST_BACKTRACE": "1"}, capture_output=True,
        text=True, timeout=timeout, stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.is_file()]


# -- stores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nginx1", "apache"])
def test_a_web_server_is_a_store(cloud, name):
    server = next(server for server in cloud.web if server.name == name)
    said = conforms("store", "http", server.url)
    assert ("resumes" in said) == (server is cloud.apache), "Apache takes ranged PUTs, nginx does not"
    assert not list(server.objects.iterdir()), "the suite, or an upload that was cut short, left something behind"


@pytest.mark.parametrize("kind", [Nginx, Apache])
def test_a_directory_that_a_web_server_shows_is_a_store(open_path, kind):
    server = kind(open_path, "web")
    server.start()
    try:
        assert "resumes" in conforms("store", "file", server.objects, server.url)
        assert not list(server.objects.iterdir())
    finally:
        server.stop()


def test_a_pool_of_ceph_is_a_store(storage):
    ceph = storage.ceph
    assert "resumes" in conforms("store", "rbd", ceph.conf, "mimeo", ceph.pool)
    assert (ceph.images(), ceph.trash()) == ([], [])


def test_a_bucket_is_a_store(storage):
    """With parts as they are, and with small ones, which are then many."""
    gateway = storage.gateway
    keys = {"AWS_ACCESS_KEY_ID": gateway.access_key, "AWS_SECRET_ACCESS_KEY": gateway.secret_key}
    assert "resumes" in conforms("store", "s3", gateway.url, gateway.bucket, "small-parts", **keys)
    assert (gateway.keys(), gateway.uploads()) == ([], [])


def test_a_bucket_of_another_server_is_a_store_also_over_https(seaweedfs, pki):
    keys = {"AWS_ACCESS_KEY_ID": seaweedfs.access_key, "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key}
    assert "resumes" in conforms("store", "s3", seaweedfs.url, seaweedfs.bucket, **keys)
    over_tls = (seaweedfs.https_url, seaweedfs.bucket, f"ca_file={pki}/ca.pem")
    assert "resumes" in conforms("store", "s3", *over_tls, **keys)
    assert "resumes" in conforms("store", "s3", *over_tls, "checksum", **keys)
    assert seaweedfs.left() == []


def test_a_container_is_a_store(storage):
    """Of a Swift that is logged in to by Keystone."""
    gateway, user = storage.gateway, "mimeo"
    where = (storage.keystone.url, user, gateway.container, PROJECTS[user])
    said = conforms("store", "swift", *where, STORE_PASSWORD=SECRET)
    assert "resumes" in said
    assert gateway.objects() == [], "an object or a segment is left"


def test_a_container_with_swifts_own_login_is_a_store(storage):
    """The container is made by the store."""
    gateway, container = storage.gateway, "conformance"
    password = {"STORE_PASSWORD": gateway.tempauth_key}
    assert "resumes" in conforms(
        "store", "swift", gateway.tempauth_url, gateway.tempauth_user, container, **password
    )
    swift = gateway.swift_tempauth()
    assert swift.get_container(container, full_listing=True)[1] == [], "an object or a segment is left"
    swift.delete_container(container)


@pytest.mark.parametrize("login", ["key", "agent", "password"])
def test_a_directory_behind_sftp_is_a_store(sshd, exported, request, login):
    if login == "password" and not sshd.password:
        pytest.fail("the server has a user with a password only where root runs the tests: run them as root")
    more = {"STORE_PASSWORD": sshd.password or ""}
    if login == "agent":
        more["SSH_AUTH_SOCK"] = str(request.getfixturevalue("ssh_agent").socket)
    where = (sshd.host, sshd.port, sshd.user, sshd.objects, exported(sshd.objects).url, sshd.known_hosts)
    assert "resumes" in conforms("store", "sftp", *where, sshd.key if login == "key" else login, **more)
    assert files(sshd.objects) == []


def test_a_directory_behind_rsync_over_ssh_is_a_store(sshd, exported, tmp_path):
    target = f"{sshd.user}@{sshd.host}:{sshd.objects}/"
    ssh = (sshd.port, sshd.key, sshd.known_hosts)
    conforms("store", "rsync", target, exported(sshd.objects).url, tmp_path, *ssh)
    assert (files(sshd.objects), files(tmp_path)) == ([], []), "at the server, or in the spool"


def test_a_module_of_rsyncs_daemon_is_a_store(rsyncd, exported, tmp_path):
    shown = exported(rsyncd.objects)
    conforms("store", "rsync", rsyncd.url, shown.url, tmp_path, STORE_PASSWORD=rsyncd.password)
    assert (files(rsyncd.objects), files(tmp_path)) == ([], []), "at the server, or in the spool"


@pytest.fixture
def pools(storage):
    """Removes what pools a test makes."""
    before = storage.ceph.pools()
    yield
    for pool in storage.ceph.pools() - before:
        storage.ceph.remove_pool(pool)


def rbd_tests() -> Path:
    """The program of the unit tests that need a Ceph; Cargo knows its name."""
    if named := os.environ.get("MIMEO_RBD_TESTS"):
        return Path(named)
    build = ["cargo", "test", "--workspace", "--test", "rbd_store", "--no-run"]
    done = subprocess.run(
        [*build, "--message-format", "json"], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return Path(next(each["executable"] for each in said if each.get("executable")))


def test_the_corners_of_rbd(storage, pools):
    """The unit tests that no fake can stand for: clones, snapshots of others', a quota that is used up, wrong keys."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MIMEO_")}
    done = subprocess.run(
        [rbd_tests(), "--ignored"], env={**own, "MIMEO_CEPH_CONF": str(storage.ceph.conf)}, capture_output=True,
        text=True, timeout=150, stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout and " 0 passed" not in done.stdout, done.stdout
    assert (storage.ceph.images(), storage.ceph.trash()) == ([], [])


# -- the registry ------------------------------------------------------------------------------------------------------


def test_glance_is_a_registry(cloud):
    # Small pages, so that a few images make a walk that follows cursors.
    cloud.glance.reconfigured({"DEFAULT": {"api_limit_max": 3}})
    conforms("registry", cloud.nginx[0].url, **cloud.keystone.os_env("mimeo"))
