"""The cloud that the tests run against: real servers on loopback, each on a port and in a directory of its own.

All data lie in one directory in memory (/dev/shm): a web server's upload must not wait for a disk, and nginx
renames an upload into place only within one file system.
"""

import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .apache import Apache
from .base import free_port, kill_all
from .glance import Glance
from .images import Images
from .keystone import Keystone
from .mariadb import MariaDB
from .nginx import Nginx
from .rabbitmq import RabbitMQ

FAULT_PORTS = 8  # known to Glance beforehand, for the faulty stores that tests start


class Cloud:
    def __init__(self, nginx: int = 3):
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.dir = Path(tempfile.mkdtemp(prefix="mimeo-e2e-", dir=base))
        self.dir.chmod(0o755)  # Apache serves as another user
        self.rabbitmq = RabbitMQ(self.dir)
        self.mariadb = MariaDB(self.dir)
        self.keystone = Keystone(self.dir)
        self.nginx = [Nginx(self.dir, f"nginx{n}") for n in range(1, nginx + 1)]
        self.apache = Apache(self.dir)
        self.fault_ports = [free_port() for _ in range(FAULT_PORTS)]
        ports = [server.port for server in (*self.nginx, self.apache)] + self.fault_ports
        self.glance = Glance(self.dir, self.keystone, self.rabbitmq.transport_url, ports)
        self.images = Images(self.glance, self.keystone)
        self.timings: dict[str, float] = {}

    @property
    def web(self) -> list:
        """The web servers, four for the tests, as stores http1 to http4 of Mimeo."""
        return [*self.nginx, self.apache]

    def start(self) -> None:
        """Everything up. What does not depend on each other starts at the same time."""
        begun = time.monotonic()
        try:
            with ThreadPoolExecutor() as pool:
                steps = [pool.submit(step) for step in (self._start_broker, self._start_databases, self._start_web)]
                for step in steps:
                    step.result()
        except BaseException:
            self.stop()
            raise
        self.timings["all"] = time.monotonic() - begun

    def _timed(self, name: str, step) -> None:
        begun = time.monotonic()
        step()
        self.timings[name] = time.monotonic() - begun

    def _start_broker(self) -> None:
        self._timed("rabbitmq", self.rabbitmq.start)

    def _start_web(self) -> None:
        for server in self.web:
            server.start()

    def _start_databases(self) -> None:
        with ThreadPoolExecutor() as pool:
            keystone = pool.submit(self._start_keystone)
            self._timed("mariadb prepare", self.mariadb.prepare)
            self._timed("mariadb", self.mariadb.start)
            self.glance.database_url = self.mariadb.create_database("glance")
            self._timed("glance prepare", self.glance.prepare)
            keystone.result()
        self._timed("glance", self.glance.start)

    def _start_keystone(self) -> None:
        self._timed("keystone prepare", self.keystone.prepare)
        self._timed("keystone", self.keystone.start)
        self._timed("keystone populate", lambda: self.keystone.populate(self.glance.url))

    def stop(self) -> None:
        try:
            for server in (self.glance, self.keystone, *self.web, self.mariadb):
                server.stop()
            self.rabbitmq.shut_down()
        finally:
            kill_all()
            shutil.rmtree(self.dir, ignore_errors=True)

    def save_logs(self, target: Path) -> None:
        """Keeps what the servers said, for the reading of a failure."""
        shutil.rmtree(target, ignore_errors=True)
        for log in self.dir.rglob("*.log"):
            kept = target / log.relative_to(self.dir)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, kept)

    def reset(self, glance: dict[str, dict] | None = None) -> None:
        """Back to what every test may expect: all servers up with their usual options (Glance with those given), no
        image anywhere."""
        self.rabbitmq.start()
        self.keystone.reconfigured(None)
        self.keystone.reset_roles()
        for server in self.web:
            server.start()
        self.glance.reconfigured(glance)
        self.images.delete_all()
        for server in self.web:
            for path in server.objects.iterdir():
                if path.is_file():
                    path.unlink()
