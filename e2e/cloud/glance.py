"""Glance as it is run in production: under uwsgi with two processes, several stores, Keystone, notifications and
locations that may be patched."""

import os
from pathlib import Path

import requests

from .base import free_port, run
from .conf import merged, write_ini
from .keystone import SECRET, Keystone
from .uwsgi import VENV, Uwsgi

FILE_STORES = ("main", "second", "third")
BACKENDS = {**dict.fromkeys(FILE_STORES, "file"), "web": "http"}


def enabled(backends: dict[str, str]) -> str:
    return ",".join(f"{name}:{kind}" for name, kind in backends.items())


class Glance(Uwsgi):
    name = "glance"
    module = "glance.wsgi.api:application"
    start_timeout = 90.0

    def __init__(self, parent: Path, keystone: Keystone, transport_url: str, allowed_ports: list[int]):
        super().__init__(parent)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.keystone = keystone
        self.transport_url = transport_url
        self.allowed_ports = [80, 443, *allowed_ports]
        self.database_url = ""
        self.overrides: dict[str, dict] = {}
        self.stores = {name: self.dir / f"store-{name}" for name in FILE_STORES}
        for path in (*self.stores.values(), self.dir / "staging", self.dir / "tasks"):
            path.mkdir()

    def env(self):
        return {**os.environ, "OS_GLANCE_CONFIG_DIR": str(self.dir)}

    def configure(self, overrides: dict[str, dict] | None = None) -> None:
        """Writes glance-api.conf; takes effect at the next start."""
        self.overrides = overrides or {}
        files = {name: {"filesystem_store_datadir": path} for name, path in self.stores.items()}
        write_ini(self.dir / "glance-api.conf", merged({
            "DEFAULT": {
                "log_file": self.dir / "glance-api.log", "transport_url": self.transport_url,
                "enabled_backends": enabled(BACKENDS),
                "enabled_import_methods": "[glance-direct,web-download,copy-image]",
                "show_multiple_locations": "true", "show_image_direct_url": "true",
                "worker_self_reference_url": self.url, "node_staging_uri": f"file://{self.dir}/staging",
            },
            "database": {"connection": self.database_url, "max_pool_size": 20},
            "glance_store": {"default_backend": "main"},
            "os_glance_staging_store": {"filesystem_store_datadir": self.dir / "staging"},
            "os_glance_tasks_store": {"filesystem_store_datadir": self.dir / "tasks"},
            "image_import_opts": {"max_parallel_stores": 3},
            # Both lists need their brackets: without them Glance refuses every URL with no word about why.
            "import_filtering_opts": {
                "allowed_hosts": "[127.0.0.1]", "allowed_ports": f"[{','.join(map(str, self.allowed_ports))}]",
            },
            "paste_deploy": {"flavor": "keystone", "config_file": VENV / "etc/glance/glance-api-paste.ini"},
            # By default a Glance without a broker hangs in every call until it is back; this one goes on and
            # loses the event.
            "oslo_messaging_notifications": {"driver": "messagingv2", "retry": 0},
            "oslo_concurrency": {"lock_path": self.dir / "tasks"},
            # The heartbeat thread of oslo.messaging and a quick notice of a broker that went away.
            "oslo_messaging_rabbit": {"kombu_reconnect_delay": 0.5, "rabbit_interval_max": 1},
            "keystone_authtoken": {
                "auth_type": "password", "auth_url": self.keystone.url, "www_authenticate_uri": self.keystone.url,
                "username": "glance", "password": SECRET, "project_name": "service",
                "user_domain_id": "default", "project_domain_id": "default",
                # A role taken away must show soon; in production that takes up to five minutes.
                "token_cache_time": 3,
            },
        }, files, self.overrides))

    @staticmethod
    def with_backends(more: dict[str, tuple[str, dict]]) -> dict[str, dict]:
        """Overrides for a Glance that has stores beside the usual ones: name → its type and its options."""
        kinds = {name: kind for name, (kind, _) in more.items()}
        options = {name: options for name, (_, options) in more.items()}
        return {"DEFAULT": {"enabled_backends": enabled({**BACKENDS, **kinds})}, **options}

    def prepare(self) -> None:
        self.configure()
        run([VENV / "bin/glance-manage", "--config-file", self.dir / "glance-api.conf", "db_sync"])

    def ready(self):
        try:
            return requests.get(f"{self.url}/v2/images", timeout=30).status_code == 401
        except requests.ConnectionError:
            return False

    def reconfigured(self, overrides: dict[str, dict] | None) -> None:
        """A restart with other options, unless they are in force already."""
        if (overrides or {}) != self.overrides or not self.running():
            self.stop()
            self.configure(overrides)
            self.start()

    def take_away(self, image: str) -> None:
        """Loses the copies in Glance's own stores, as a broken disk would; locations stay as they are."""
        for path in self.stores.values():
            (path / image).unlink(missing_ok=True)
