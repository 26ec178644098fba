"""Credentials that are changed while `serve` runs, and taken over by SIGHUP: of a store, and of Mimeo's own user."""

import base64
import hashlib
import os

import pytest

from cloud.base import eventually
from cloud.keystone import PROJECTS
from cloud.nginx import Nginx
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
