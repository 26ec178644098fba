"""Credentials that are changed while `serve` runs, and taken over by SIGHUP: of a store, and of Mimeo's own user."""

import base64
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from cloud.base import eventually
from cloud.ceph import CAPS, new_key
from cloud.conf import write_ini
from cloud.keystone import PROJECTS
from cloud.nginx import Nginx
from mimeo import NO_SCAN
from test_limits import RELOADED, copying, reload, told

MiB = 1 << 20
USER = "mimeo"


class Guarded(Nginx):
    """Who writes is asked for a password; who reads, as Glance does, is not."""

    def _conf(self):
        dav = "dav_methods PUT DELETE; create_full_put_path on;"
        basic = f'auth_basic "images"; auth_basic_user_file {self.dir}/htpasswd;'
        plain = super()._conf()
        assert dav in plain
        return plain.replace(dav, f"{dav} limit_except GET HEAD {{ {basic} }}")

    def wants(self, password: str) -> None:
        """From now on; nginx reads the file for each request."""
        digest = base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
        path = self.dir / "htpasswd"
        path.with_suffix(".new").write_text(f"{USER}:{{SHA}}{digest}\n")
        path.with_suffix(".new").chmod(0o644)
        path.with_suffix(".new").rename(path)


@pytest.fixture
def guarded(cloud):
    server = Guarded(cloud.dir / "runs" / f"guarded-{os.urandom(4).hex()}", "nginx", cloud.fault_ports[-1])
    server.wants("0ld-password")
    server.start()
    yield server
    server.stop()


class Account:
    """A user of Keystone, an admin of the service project, and the clouds.yaml that names it."""

    def __init__(self, keystone, path):
        self.keystone, self.path = keystone, path
        body = {"name": f"rotated-{os.urandom(4).hex()}", "password": "0ld-secret", "domain_id": "default"}
        self.name, self.password = body["name"], body["password"]
        self.id = keystone.admin("POST", "/users", json={"user": body})["user"]["id"]
        project, role = keystone.ids[PROJECTS["mimeo"]], keystone.ids["role:admin"]
        keystone.admin("PUT", f"/projects/{project}/users/{self.id}/roles/{role}")
        self.write()

    def change(self, password: str) -> None:
        """At Keystone, which ends every token of the user."""
        self.keystone.admin("PATCH", f"/users/{self.id}", json={"user": {"password": password}})
        self.password = password

    def write(self) -> None:
        self.path.write_text(f"""
clouds:
  own:
    region_name: RegionOne
    auth:
      auth_url: {self.keystone.url}
      username: {self.name}
      password: {self.password}
      project_name: {PROJECTS["mimeo"]}
      user_domain_id: default
      project_domain_id: default
""")


@pytest.fixture
def account(cloud, tmp_path):
    made = Account(cloud.keystone, tmp_path / "clouds.yaml")
    yield made
    cloud.keystone.admin("DELETE", f"/users/{made.id}")


def test_passwords_change_while_a_copy_runs(mimeo, images, guarded, account):
    """Of the store and of Keystone's user. The copy that runs ends registered, in its one request, and so do new ones."""
    mimeo.credentials, mimeo.extra_env = {}, {"OS_CLIENT_CONFIG_FILE": str(account.path)}
    mimeo.stores = {"guarded": guarded}
    secret = mimeo.dir / "password"
    secret.write_text("0ld-password\n")
    own = {"user": USER, "password": "file:password"}
    mimeo.serve(openstack={"cloud": "own"}, **{"stores.guarded": {**own, "bandwidth": "256KiB/s"}})
    data = os.urandom(16 * MiB)
    image = images.create(data)
    eventually(lambda: copying(mimeo, image), 30, "the copy has begun")
    eventually(lambda: list((guarded.dir / "tmp").iterdir()), 30, "nginx takes the body")

    guarded.wants("n3w-password")
    secret.write_text("n3w-password\n")
    account.change("n3w-secret")
    account.write()
    mimeo.configure(openstack={"cloud": "own"}, **{"stores.guarded": {**own, "bandwidth": "100MiB/s"}})
    assert copying(mimeo, image), "the copy still runs"
    reload(mimeo, RELOADED)

    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert len(guarded.requests("PUT", image)) == 1, "no copy was begun anew"
    another = images.create(b"another")
    mimeo.wait_registered(another)
    mimeo.assert_complete(another, b"another")
    assert not told(mimeo, "only after a restart") and not told(mimeo, "not renewed")
    log = "\n".join(mimeo.log_lines())
    assert not any(password in log for password in ("0ld-", "n3w-"))


def test_what_is_wrong_or_needs_a_restart_leaves_the_rest_as_it_is(mimeo, images, guarded, account):
    """A cloud that is not in clouds.yaml any more, and another user of a store: each is told, and copies go on."""
    mimeo.credentials, mimeo.extra_env = {}, {"OS_CLIENT_CONFIG_FILE": str(account.path)}
    mimeo.stores = {"guarded": guarded}
    own = {"user": USER, "password": "0ld-password"}
    mimeo.serve(openstack={"cloud": "own"}, **{"stores.guarded": own})
    account.path.write_text("clouds: {}\n")
    mimeo.configure(openstack={"cloud": "own"}, **{"stores.guarded": {"user": "other", "password": "of the other"}})
    assert "[openstack]" in reload(mimeo, "not renewed")[0]
    assert "[stores.guarded]" in eventually(lambda: told(mimeo, "only after a restart"), 10, "the user is told")[0]
    image = images.create(b"bits")
    mimeo.wait_registered(image)


class Key:
    """What opens one kind of store: the options of its section that lead to it, and how it is exchanged: at the server, then
    where the options lead."""

    def __init__(self, directory: Path):
        self.file = directory
        self.options: dict = {}

    def exchange(self) -> None:
        raise NotImplementedError


class S3Key(Key):
    def __init__(self, directory, gateway):
        super().__init__(directory / "s3-secret")
        self.gateway = gateway
        self._new()

    def _new(self) -> None:
        name, secret = f"ROTATED{os.urandom(4).hex().upper()}", os.urandom(8).hex()
        self.gateway.add_key(name, secret)
        self.file.write_text(secret)
        self.options = {"access_key": name, "secret_key": "file:s3-secret"}

    def exchange(self):
        before = self.options["access_key"]
        self._new()
        self.gateway.remove_key(before)

    def end(self) -> None:
        self.gateway.remove_key(self.options["access_key"])


class CephKey(Key):
    """A user of its own, whose keyring is where ceph.conf says."""

    def __init__(self, _directory, ceph):
        self.ceph, self.user = ceph, f"rotated-{os.urandom(4).hex()}"
        super().__init__(ceph.dir / f"ceph.client.{self.user}.keyring")
        self.options = {"user": self.user}
        self.exchange()

    def exchange(self):
        entity = f"client.{self.user}"
        caps = {f"caps {of}": f'"{cap}"' for of, cap in CAPS["client.mimeo"].items()}
        new = self.file.with_suffix(".new")
        write_ini(new, {entity: {"key": new_key(), **caps}})
        self.ceph.run("ceph", "auth", "import", "-i", new)
        new.rename(self.file)

    def end(self) -> None:
        self.ceph.run("ceph", "auth", "del", f"client.{self.user}")


class SshKey(Key):
    def __init__(self, directory, sshd):
        super().__init__(directory / "ssh-key")
        self.sshd = sshd
        self.options = {"key_file": str(self.file), "password": None}
        shutil.copy(sshd.key, self.file)

    def exchange(self):
        new = self.file.with_suffix(".new")
        self.sshd.new_key(new)
        shutil.copy(new.with_suffix(".new.pub"), self.sshd.dir / "authorized_keys")
        new.rename(self.file)


class RsyncPassword(Key):
    def __init__(self, directory, rsyncd):
        super().__init__(directory / "rsync-password")
        self.rsyncd = rsyncd
        self.options = {"password": "file:rsync-password"}
        self.file.write_text(rsyncd.password)

    def exchange(self):
        self.rsyncd.secrets_file.write_text(f"{self.rsyncd.user}:exchanged\n")
        self.file.write_text("exchanged")


@pytest.fixture
def keys(mimeo, storage, sshd, rsyncd):
    made = {
        "s3": S3Key(mimeo.dir, storage.gateway), "rbd": CephKey(mimeo.dir, storage.ceph),
        "sftp": SshKey(mimeo.dir, sshd), "rsync": RsyncPassword(mimeo.dir, rsyncd),
    }
    yield made
    made["s3"].end()
    made["rbd"].end()


@pytest.mark.timeout(240)
def test_keys_change_while_copies_run_to_every_kind_of_store(mimeo, images, places, keys):
    """S3's keys between two parts, Ceph's keyring, ssh's key and rsync's password: what runs ends in its one object, and what
    comes then has the new ones."""
    mimeo.stores = {kind: places[kind] for kind in keys}
    for kind in keys:
        places[kind].section.update(keys[kind].options)
        places[kind].section = {name: value for name, value in places[kind].section.items() if value is not None}
    mimeo.serve(store_defaults={"bandwidth": "1MiB/s", "timeout": "10s"})
    data = os.urandom(40 * MiB)
    image = images.create(data)
    for kind in ("s3", "rbd", "sftp"):  # rsync has it in its spool first, and logs in when that is complete
        eventually(lambda kind=kind: places[kind].written(image) > 0, 60, f"something of it is at {kind}")
    for kind, key in keys.items():
        key.exchange()
        places[kind].section.update({name: value for name, value in key.options.items() if value is not None})
    mimeo.configure(store_defaults={"bandwidth": "100MiB/s", "timeout": "10s"})
    assert copying(mimeo, image), "the copies still run"
    reload(mimeo, RELOADED)

    mimeo.wait_registered(image, timeout=120)
    another = images.create(b"another")
    mimeo.wait_registered(another)
    assert len([line for line in told(mimeo, " copying ") if image in line]) == 1, "no copy was begun anew"
    for made, bits in ((image, data), (another, b"another")):
        for kind, place in mimeo.stores.items():
            [name] = [name for name in place.left() if name.startswith(made)]
            assert place.read(name) == bits, kind
    assert not told(mimeo, "only after a restart") and not told(mimeo, "not renewed")


def test_the_brokers_password_changes(cloud, mimeo, images):
    """The connection that stands goes on; the next one has the new password."""
    broker, user = cloud.rabbitmq, f"rotated-{os.urandom(4).hex()}"
    secret = mimeo.dir / "transport-url"

    def url(password: str) -> str:
        return f"rabbit://{user}:{password}@127.0.0.1:{broker.port}/"

    broker.control("add_user", user, "0ld-password")
    broker.control("set_permissions", user, ".*", ".*", ".*")
    try:
        secret.write_text(url("0ld-password"))
        mimeo.serve(events={"transport_url": "file:transport-url"}, **NO_SCAN)
        broker.control("change_password", user, "n3w-password")
        secret.write_text(url("n3w-password"))
        reload(mimeo, RELOADED)
        mimeo.wait_registered(images.create(b"by the connection that stands"))
        broker.control("close_all_user_connections", user, "the test wants another")
        eventually(lambda: told(mimeo, "no connection"), 30, "the log tells that the connection is gone")
        mimeo.wait_listening()
        mimeo.wait_registered(images.create(b"by the next one"))
    finally:
        broker.control("delete_user", user)
    assert not any("password" in line for line in mimeo.log_lines())
