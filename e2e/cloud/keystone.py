"""Keystone, with the users that the tests act as: an admin, Mimeo's own service user (also with an application
credential), and two tenants."""

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from .base import free_port, run
from .conf import merged, write_ini
from .uwsgi import VENV, Uwsgi

SECRET = "secret"
ROLES = {"admin": "admin", "mimeo": "admin", "glance": "admin", "alice": "member", "bob": "member"}
PROJECTS = {"admin": "admin", "mimeo": "service", "glance": "service", "alice": "alpha", "bob": "beta"}


@dataclass
class Token:
    value: str
    project: str
    expires: float


class Keystone(Uwsgi):
    name = "keystone"
    module = "keystone.wsgi.api:application"
    # One process, so that the cache in its memory is the only one: a role taken away shows at once. One thread, since
    # a second request that comes while the first one loads the policies is answered 403.
    processes = 1
    threads = 1
    # uwsgi resets a connection whose body the application did not read to its end; read it before, since it is small.
    extra = ("--post-buffering", 65536)

    def __init__(self, parent: Path):
        super().__init__(parent)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v3"
        self.database = self.dir / "keystone.db"
        self.overrides: dict[str, dict] = {}
        self.ids: dict[str, str] = {}
        self.application_credential: dict[str, str] = {}
        self._tokens: dict[str, Token] = {}
        self._demoted: set[str] = set()

    def env(self):
        return {**os.environ, "OS_KEYSTONE_CONFIG_DIR": str(self.dir), "OS_KEYSTONE_CONFIG_FILES": "keystone.conf"}

    def configure(self, overrides: dict[str, dict] | None = None) -> None:
        self.overrides = overrides or {}
        write_ini(self.dir / "keystone.conf", merged({
            "DEFAULT": {"log_file": self.dir / "keystone-api.log", "insecure_debug": "true"},
            "database": {"connection": f"sqlite:///{self.database}"},
            "token": {"provider": "fernet", "expiration": 7200, "allow_expired_window": 0},
            "fernet_tokens": {"key_repository": self.dir / "fernet"},
            "credential": {"key_repository": self.dir / "credential"},
            # The tests log in often; the cheapest hash is enough for a secret that everybody may know.
            "identity": {"password_hash_algorithm": "bcrypt", "password_hash_rounds": 4},
            # Without it Keystone asks its database 450 times to validate one token.
            "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
        }, self.overrides))

    def prepare(self) -> None:
        self.configure()
        conf = self.dir / "keystone.conf"
        manage = [VENV / "bin/keystone-manage", "--config-file", conf]
        user = f"{os.getuid()}"
        group = f"{os.getgid()}"
        run([*manage, "db_sync"])
        with sqlite3.connect(self.database) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers and writers of two processes must not block
        run([*manage, "fernet_setup", "--keystone-user", user, "--keystone-group", group])
        run([*manage, "credential_setup", "--keystone-user", user, "--keystone-group", group])
        run([
            *manage, "bootstrap", "--bootstrap-password", SECRET, "--bootstrap-region-id", "RegionOne",
            *[f"--bootstrap-{kind}-url={self.url}" for kind in ("public", "internal", "admin")],
        ])

    def ready(self):
        try:
            return requests.get(self.url, timeout=5).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False

    def reconfigured(self, overrides: dict[str, dict] | None) -> None:
        """A restart with other options, unless they are in force already."""
        if (overrides or {}) != self.overrides or not self.running():
            self.stop()
            self.configure(overrides)
            self._tokens.clear()  # their lifetime was another
            self.start()

    # -- content ---------------------------------------------------------------------------------------------

    def populate(self, glance_url: str) -> None:
        """Projects, users, roles, the application credential and the image service of the catalog."""
        for project in sorted(set(PROJECTS.values()) - {"admin"}):
            self._create("project", {"name": project, "domain_id": "default"})
        self.ids["admin"] = self._find("project", "admin")
        roles = {name: self._find("role", name) for name in set(ROLES.values())}
        self.ids.update({f"role:{name}": value for name, value in roles.items()})
        for user, project in PROJECTS.items():
            if user != "admin":
                self._create("user", {"name": user, "password": SECRET, "domain_id": "default"}, prefix="user:")
                self.grant(user, ROLES[user])
        self.add_service("image", "glance", glance_url)
        self._create_application_credential()

    def add_service(self, kind: str, name: str, url: str) -> None:
        """A service and its endpoints in the catalog. `%(project_id)s` in the URL is the project of who reads it."""
        service = self._create("service", {"type": kind, "name": name}, prefix="service:")
        for interface in ("public", "internal", "admin"):
            body = {"service_id": service, "interface": interface, "url": url, "region_id": "RegionOne"}
            self.admin("POST", "/endpoints", json={"endpoint": body})

    def _create_application_credential(self) -> None:
        created = requests.post(
            f"{self.url}/users/{self.ids['user:mimeo']}/application_credentials",
            headers={"X-Auth-Token": self.token("mimeo").value}, timeout=30,
            json={"application_credential": {"name": "replicator", "secret": SECRET}},
        )
        created.raise_for_status()
        self.application_credential = {"id": created.json()["application_credential"]["id"], "secret": SECRET}

    def _create(self, kind: str, body: dict, prefix: str = "") -> str:
        made = self.admin("POST", f"/{kind}s", json={kind: body})[kind]["id"]
        self.ids[prefix + body["name"]] = made
        return made

    def _find(self, kind: str, name: str) -> str:
        return self.admin("GET", f"/{kind}s?name={name}")[f"{kind}s"][0]["id"]

    def admin(self, method: str, path: str, **more):
        headers = {"X-Auth-Token": self.token("admin").value}
        answer = requests.request(method, self.url + path, headers=headers, timeout=30, **more)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def grant(self, user: str, role: str) -> None:
        self.admin("PUT", self._assignment(user, role))

    def revoke(self, user: str, role: str) -> None:
        self.admin("DELETE", self._assignment(user, role))

    def demote(self, user: str) -> None:
        """From admin to plain member: every image of other projects is now a 404, with no error anywhere."""
        self.grant(user, "member")
        self.revoke(user, "admin")
        self._demoted.add(user)

    def reset_roles(self) -> None:
        for user in list(self._demoted):
            self.grant(user, "admin")
            self.revoke(user, "member")
            self._demoted.remove(user)

    def _assignment(self, user: str, role: str) -> str:
        project = self.ids[PROJECTS[user]]
        return f"/projects/{project}/users/{self.ids['user:' + user]}/roles/{self.ids['role:' + role]}"

    # -- what a client needs -----------------------------------------------------------------------------------

    def token(self, user: str) -> Token:
        known = self._tokens.get(user)
        if known and known.expires > time.monotonic():
            return known
        password = {"user": {"name": user, "domain": {"id": "default"}, "password": SECRET}}
        body = {"auth": {
            "identity": {"methods": ["password"], "password": password},
            "scope": {"project": {"name": PROJECTS[user], "domain": {"id": "default"}}},
        }}
        answer = requests.post(f"{self.url}/auth/tokens", json=body, timeout=30)
        answer.raise_for_status()
        lifetime = float(self.overrides.get("token", {}).get("expiration", 7200))
        token = Token(
            answer.headers["X-Subject-Token"], answer.json()["token"]["project"]["id"],
            time.monotonic() + lifetime / 2,
        )
        self._tokens[user] = token
        return token

    def os_env(self, user: str) -> dict[str, str]:
        """The OS_* variables as an operator has them in an openrc file."""
        return {
            "OS_AUTH_URL": self.url, "OS_USERNAME": user, "OS_PASSWORD": SECRET, "OS_PROJECT_NAME": PROJECTS[user],
            "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default", "OS_IDENTITY_API_VERSION": "3",
            "OS_REGION_NAME": "RegionOne",
        }

    def os_env_application_credential(self) -> dict[str, str]:
        return {
            "OS_AUTH_TYPE": "v3applicationcredential", "OS_AUTH_URL": self.url, "OS_IDENTITY_API_VERSION": "3",
            "OS_APPLICATION_CREDENTIAL_ID": self.application_credential["id"],
            "OS_APPLICATION_CREDENTIAL_SECRET": self.application_credential["secret"],
            "OS_REGION_NAME": "RegionOne",
        }
