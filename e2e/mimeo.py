"""The program under test, as an operator has it: a configuration file, `mimeo serve` as a child process, and its
commands."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import requests

from cloud import Cloud
from cloud.base import Server, eventually, free_port, listens
from places import Place

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("MIMEO_BIN", ROOT / "target/debug/mimeo"))

# Short, so that what takes minutes in a cloud takes seconds here. A test that must not be helped by the scan
# turns it off with `no_scan`.
QUICK = {
    "scan": {"interval": "2s"},
    "gc": {"interval": "1s", "grace": "2s", "max_percent": 100},
    "retry": {"first": "500ms", "max": "2s"},
    "store_defaults": {"type": "http", "timeout": "3s"},
}
NO_SCAN = {"scan": {"interval": "1h"}}


def toml(config: dict) -> str:
    """Plain values first, then tables; a list of dicts is an array of tables. JSON's strings, numbers, booleans
    and lists are TOML's too."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items() if not _is_table(value)]
    for key, value in config.items():
        for table in (value if isinstance(value, list) else [value]) if _is_table(value) else []:
            lines += ["", f"[[{key}]]" if isinstance(value, list) else f"[{key}]"]
            lines += [f"{name} = {json.dumps(item)}" for name, item in table.items()]
    return "\n".join(lines) + "\n"


def _is_table(value) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _section(server) -> dict:
    return dict(server.section) if isinstance(server, Place) else {"url": server.url}


class Mimeo(Server):
    name = "mimeo"
    start_timeout = 30.0

    def __init__(self, parent: Path, cloud: Cloud):
        super().__init__(parent)
        if not BINARY.exists():
            raise RuntimeError(f"{BINARY} is missing: run `cargo build`, or name another in MIMEO_BIN")
        self.cloud = cloud
        self.port = free_port()
        self.ledger = self.dir / "mimeo.db"
        self.config_file = self.dir / "mimeo.toml"
        self.queue = f"mimeo-e2e-{self.port}"
        self.arguments: list[str] = []
        self.credentials = cloud.keystone.os_env("mimeo")
        self.extra_env: dict[str, str] = {}
        self.stores: dict[str, object] = {}  # name → a server with `url` and `objects`, or a place with its `section`
        self.config: dict = {}
        self.use(*cloud.nginx)

    # -- configuring -------------------------------------------------------------------------------------------------

    def use(self, *servers) -> None:
        """These servers are the stores http1, http2 and so on."""
        self.stores = {f"http{n}": server for n, server in enumerate(servers, 1)}

    def configure(self, **changes: dict | None) -> None:
        """Writes mimeo.toml; `changes` are merged into the sections of the usual one, and None leaves one out."""
        config: dict = {
            "enabled_stores": list(self.stores),
            **{section: dict(options) for section, options in QUICK.items()},
            **{f"stores.{name}": _section(server) for name, server in self.stores.items()},
            "events": {"transport_url": self.cloud.rabbitmq.transport_url, "queue": self.queue},
            "ledger": {"url": f"sqlite:{self.ledger}"},
            "api": {"listen": f"127.0.0.1:{self.port}"},
        }
        for section, options in changes.items():
            if options is None:
                config.pop(section)
            elif isinstance(options, dict):
                config.setdefault(section, {}).update(options)
            else:
                config[section] = options
        self.config = config
        self.config_file.write_text(toml(config))

    def env(self):
        own = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "MIMEO_"))}
        return {**own, **self.credentials, "RUST_BACKTRACE": "1", "NO_COLOR": "1", **self.extra_env}

    # -- serving -------------------------------------------------------------------------------------------------------

    def command(self):
        return [BINARY, "--config", self.config_file, "serve", *self.arguments]

    def ready(self):
        return listens(self.port)

    def serve(self, *arguments: str, **changes: dict | None) -> None:
        """Starts `mimeo serve` and waits until it answers; if the broker is up, also until it listens there."""
        self.arguments = list(arguments)
        self.configure(**changes)
        self.start()
        if "events" in self.config and self.cloud.rabbitmq.running():
            self.wait_listening()

    def wait_listening(self, timeout: float = 30) -> None:
        eventually(lambda: self.consumers() > 0, timeout, "mimeo consumes its queue")

    def consumers(self) -> int:
        with self.cloud.rabbitmq.connect() as connection:
            try:
                return connection.default_channel.queue_declare(self.queue, passive=True).consumer_count
            except connection.channel_errors:
                return 0

    def reload(self) -> None:
        """SIGHUP. What came of it is in the log."""
        self.process.send_signal(signal.SIGHUP)

    def memory(self) -> int:
        """Bytes of memory of its own; the pages of the program, which the kernel can take and read again, do not count."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024

    def discard(self) -> None:
        """Ends it and removes its queue, which would go on collecting messages."""
        self.stop()
        if self.cloud.rabbitmq.running():
            with self.cloud.rabbitmq.connect() as connection:
                try:
                    connection.default_channel.queue_delete(self.queue)
                except connection.channel_errors:
                    pass

    # -- asking --------------------------------------------------------------------------------------------------------

    def run(self, *arguments: str, timeout: float = 120, **more) -> tuple[int, str, str]:
        done = subprocess.run(
            [str(BINARY), "--config", str(self.config_file), *arguments], env=self.env(), cwd=self.dir,
            capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **more,
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, *arguments: str):
        """A command's answer as JSON. That it fails is an AssertionError, so that it can be waited out."""
        code, out, err = self.run(*arguments, "-f", "json")
        assert code == 0, f"mimeo {' '.join(arguments)} ended with {code}: {err}"
        return json.loads(out)

    def status(self, image: str) -> dict:
        return self.ask("status", image)

    def overview(self) -> dict:
        """`serve` at a glance, from its API."""
        answer = self.api("/v1/overview")
        assert answer.ok, answer.text
        return answer.json()

    def api(self, path: str, token: str | None = None, method: str = "GET", **more) -> requests.Response:
        token = token or (self.dir / "mimeo.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        return requests.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30, **more)

    def limits(self) -> dict:
        answer = self.api("/v1/limits")
        assert answer.ok, answer.text
        return answer.json()

    def patch_limits(self, patch: dict, **headers: str) -> requests.Response:
        return self.api("/v1/limits", method="PATCH", json=patch, headers=headers)

    def log_lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def replica(self, image: str, store: str) -> dict:
        return next(r for r in self.status(image)["replicas"] if r["store"] == store)

    def reason(self, image: str, store: str) -> str:
        return (self.replica(image, store)["reason"] or {}).get("code", "")

    # -- waiting and judging -------------------------------------------------------------------------------------------

    def objects(self, store: str, image: str = "") -> list[Path]:
        """The finished objects that a store's server has for an image (for all)."""
        return sorted(p for p in self.stores[store].objects.glob(f"{image}*") if p.is_file() and p.name[0] != ".")

    def wait_registered(self, image: str, timeout: float = 60, stores: list[str] | None = None) -> None:
        """Until `mimeo status` says so and Glance shows the locations too."""
        wanted = set(stores or self.stores)

        def check():
            report = self.status(image)
            states = {r["store"]: r["state"] for r in report["replicas"] if r["store"] in wanted}
            assert states == dict.fromkeys(wanted, "registered"), report
            if stores is None:
                assert report["state"] == "registered", report
            assert wanted <= set(self.cloud.images.mimeo_locations(image)), self.cloud.images.show(image)
            return True

        eventually(check, timeout, f"{image} is registered on {sorted(wanted)}", pause=0.2)

    def wait_reason(self, image: str, store: str, codes: set[str], timeout: float = 60) -> None:
        def check():
            replica = self.replica(image, store)
            assert replica["state"] != "registered", replica
            assert replica["reason"], replica
            assert replica["reason"]["code"] in codes, replica
            assert replica["reason"]["message"], replica
            return True

        eventually(check, timeout, f"{store} of {image} fails for one of {sorted(codes)}", pause=0.2)

    def assert_complete(self, image: str, data: bytes) -> None:
        """One location per store, and behind each of them exactly the image's bytes, and no other object of it."""
        locations = self.cloud.images.mimeo_locations(image)
        assert set(locations) == set(self.stores), locations
        for store, server in self.stores.items():
            found = eventually(
                lambda s=store: self.objects(s, image) if len(self.objects(s, image)) == 1 else None,
                20, f"exactly one object of {image} is left on {store}",
            )
            assert locations[store] == server.url + found[0].name
            assert found[0].read_bytes() == data, f"{store} has other bytes"

    def assert_read_once(self, image: str) -> None:
        """Glance gave all of the image once; whoever fell behind the others, as on a busy machine, read a rest of it."""
        first, *others = self.cloud.glance.requests("GET", f"/images/{image}/file")
        alone = sum("goes on alone" in line and image in line for line in self.log_lines())
        assert " 200 " in first and all(" 206 " in read for read in others) and len(others) <= alone, (first, others)
