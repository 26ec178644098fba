"""The real servers pass the suites that the fakes pass: what a unit test finds with a fake holds for the real thing.
Each suite leaves nothing behind, and neither do the copies in it that are broken off."""

import json
import os
import subprocess
from pathlib import Path

from urllib.parse import quote

import pytest

from cloud.apache import Apache
from cloud.base import program
from cloud.keystone import PROJECTS, SECRET
from cloud.nginx import Nginx
from mimeo import ROOT
from places import ODD, ODDER

PROGRAM = Path(os.environ.get("MIMEO_CONFORMANCE", ROOT / "target/debug/examples/conformance"))


def with_hosts(file: Path, command: list) -> list:
    """The command in a mount namespace of its own, where this file is /etc/hosts."""
    if os.getuid() != 0:
        pytest.fail("only root may give a program another /etc/hosts: run the tests as root")
    script = f'mount --bind "{file}" /etc/hosts; exec "$@"'
    return [program("unshare", "util-linux"), "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *command]


def conforms(*arguments, timeout: float = 180, hosts: Path | None = None, **variables: str) -> str:
    """What the program said. `hosts`: what it alone sees as /etc/hosts."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "MIMEO_", "AWS_"))}
    command = [PROGRAM, *arguments]
    if hosts:
        command = with_hosts(hosts, command)
    done = subprocess.run(
        list(map(str, command)), env={**own, **variables, "RUST_BACKTRACE": "1"}, capture_output=True,
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


@pytest.mark.parametrize("name", ["nginx1", "apache"])
def test_a_web_servers_directory_may_have_an_odd_name(cloud, name):
    server = next(server for server in cloud.web if server.name == name)
    (server.objects / ODDER).mkdir()
    try:
        server.objects.chmod(0o777)
        (server.objects / ODDER).chmod(0o777)
        conforms("place", "http", f"{server.url}{quote(ODDER)}/")
        assert not list((server.objects / ODDER).iterdir())
    finally:
        (server.objects / ODDER).rmdir()


@pytest.mark.parametrize("kind", [Nginx, Apache])
def test_a_directory_that_a_web_server_shows_is_a_store(open_path, kind):
    server = kind(open_path, "web")
    server.start()
    try:
        assert "resumes" in conforms("store", "file", server.objects, server.url)
        assert not list(server.objects.iterdir())
    finally:
        server.stop()


def test_directories_behind_sftp_and_rsync_may_have_odd_names(sshd, rsyncd, exported, tmp_path):
    """And one of this machine. Whatever shows them is asked with the name in a URL's form."""
    for server in (sshd, rsyncd):
        for odd in (ODD, ODDER):
            (server.objects / odd).mkdir()
            (server.objects / odd).chmod(0o777)
    shown = {server: exported(server.objects).url for server in (sshd, rsyncd)}
    login = (sshd.host, sshd.port, sshd.user)
    conforms("place", "sftp", *login, sshd.objects / ODDER, f"{shown[sshd]}{quote(ODDER)}", sshd.known_hosts, sshd.key)
    ssh = (sshd.port, sshd.key, sshd.known_hosts)
    spool = tmp_path / ODDER
    spool.mkdir()
    conforms("place", "rsync", f"{sshd.user}@{sshd.host}:{sshd.objects}/{ODD}", f"{shown[sshd]}{quote(ODD)}", spool, *ssh)
    conforms("place", "rsync", f"{rsyncd.url}{ODD}", f"{shown[rsyncd]}{quote(ODD)}", spool, STORE_PASSWORD=rsyncd.password)
    conforms("place", "file", rsyncd.objects / ODDER, f"{shown[rsyncd]}{quote(ODDER)}")
    left = {path.name for server in (sshd, rsyncd) for path in server.objects.iterdir()}
    assert left == {ODD, ODDER}, "nothing was made beside them"
    assert files(sshd.objects) + files(rsyncd.objects) + files(spool) == []


def test_a_pool_of_ceph_is_a_store(storage):
    ceph = storage.ceph
    assert "resumes" in conforms("store", "rbd", ceph.conf, "mimeo", ceph.pool)
    assert (ceph.images(), ceph.trash()) == ([], [])


def test_a_pool_may_have_an_odd_name(storage, pools):
    storage.ceph.add_pool(ODDER)
    conforms("place", "rbd", storage.ceph.conf, "admin", ODDER)
    assert storage.ceph.images(ODDER) == []


def test_a_bucket_is_a_store(storage):
    """With parts as they are, and with small ones, which are then many."""
    gateway = storage.gateway
    keys = {"AWS_ACCESS_KEY_ID": gateway.access_key, "AWS_SECRET_ACCESS_KEY": gateway.secret_key}
    assert "resumes" in conforms("store", "s3", gateway.url, gateway.bucket, "small-parts", **keys)
    assert (gateway.keys(), gateway.uploads()) == ([], [])


def test_a_bucket_by_its_own_hosts_name_with_keys_that_end_and_names_with_a_prefix(storage, tmp_path):
    """What a server of many buckets and its users have: `bucket.host`, and keys with a session token."""
    gateway = storage.gateway
    access_key, secret_key, token = gateway.keys_that_end()
    keys = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key, "AWS_SESSION_TOKEN": token}
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 {gateway.host} {gateway.bucket}.{gateway.host}\n")
    url = f"http://{gateway.host}:{gateway.port}"
    conforms("place", "s3", url, gateway.bucket, "virtual-host", "prefix=Site-1.", hosts=hosts, **keys)
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
    conforms("place", "swift", gateway.tempauth_url, gateway.tempauth_user, container, **password)
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
    if login == "key":
        assert "resumes" in conforms("store", "sftp", *where, sshd.key)
    else:
        conforms("place", "sftp", *where, login, **more)
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
