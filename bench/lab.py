"""Where it is measured: the real cloud of the end-to-end tests, with more web servers; and what all parts do with it.

Everything that is written to lies in memory (/dev/shm), so that no disk's write-back is measured; only Mimeo's own
directory is on the disk, as it is for an operator: its ledger is written through, and if it staged anything, that would
count.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import psutil

from cloud import Cloud
from cloud.apache import Apache
from cloud.base import eventually, tail
from mimeo import QUICK, ROOT, Mimeo

from .content import MIB
from .processes import with_children
from .sight import Sight
from .watchdog import limit, say

NGINX = 8
SHARED_MEMORY = Path("/dev/shm")
LEFT_FREE = 3072  # MiB


class Lab:
    def __init__(self):
        self._started: Cloud | None = None

    # -- the cloud -----------------------------------------------------------------------------------------------------

    @cached_property
    def cloud(self) -> Cloud:
        """Started when a part first needs it."""
        say("starting the cloud")
        cloud = Cloud(nginx=NGINX)
        self._started = cloud
        with limit(300, "the start of the cloud"):
            cloud.start()
            self._set_glance(cloud)
        return cloud

    @cached_property
    def sight(self) -> Sight:
        return Sight(self.cloud)

    @cached_property
    def webdav(self) -> list[Apache]:
        """Three more web servers, which speak all of WebDAV, as rclone wants it; nginx speaks only PUT and DELETE."""
        return [Apache(self.cloud.dir, f"webdav{n}") for n in (1, 2, 3)]

    @cached_property
    def scratch(self) -> Path:
        """A directory in memory."""
        base = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        return Path(tempfile.mkdtemp(prefix="mimeo-bench-", dir=base))

    def close(self) -> None:
        try:
            for server in self.__dict__.get("webdav", []):
                server.stop()
            if self._started:
                self._started.stop()
        finally:
            if "scratch" in self.__dict__:
                shutil.rmtree(self.scratch, ignore_errors=True)

    def clean(self) -> None:
        """No image and no object anywhere, everything up: what a part may expect, also after one that failed."""
        self.cloud.rabbitmq.start()
        for server in self.cloud.web:
            server.start()
        self.set_parallel_stores(3)
        self.cloud.images.delete_all()
        self.sweep()

    def sweep(self) -> None:
        """Removes every object from the web servers; Glance never does."""
        for server in (*self.cloud.web, *self.__dict__.get("webdav", [])):
            for path in server.objects.iterdir():
                if path.is_file():
                    path.unlink()

    def set_parallel_stores(self, number: int) -> None:
        """Glance's max_parallel_stores, in imports. Costs a restart if it changes."""
        self._set_glance(self.cloud, number)

    @staticmethod
    def _set_glance(cloud: Cloud, parallel_stores: int = 3) -> None:
        overrides = {
            # A token is validated once in five minutes, as by default; the tests have that shorter.
            "keystone_authtoken": {"token_cache_time": 300},
            "image_import_opts": {"max_parallel_stores": parallel_stores},
        }
        if overrides == cloud.glance.overrides and cloud.glance.running():
            return
        cloud.glance.reconfigured(overrides)
        # The first requests load code in each of its processes.
        for number in range(8):
            image = cloud.images.create(b"warm", f"warm-{number}")
            cloud.images.delete(image)
        for number in range(3):
            image = cloud.images.record(f"warm-import-{number}")
            cloud.images.stage(image, b"warm")
            cloud.images.start_import(image, {"name": "glance-direct"}, ["main", "second"])
            cloud.images.wait_status(image, "active")
            eventually(lambda: not cloud.images.show(image).get("os_glance_import_task"), 60, "the import is over")
            cloud.images.delete(image)

    def glance_processes(self) -> list[int]:
        return with_children(self.cloud.glance.process.pid)

    def glance_file(self, image: str) -> Path:
        """Glance's own copy of an image in its default store."""
        return self.cloud.glance.stores["main"] / image

    def source_reads(self, image: str, mib: int) -> float:
        """What Glance has sent of an image, in images. It notes a request at its end."""
        path = f"/v2/images/{image}/file"
        try:
            eventually(lambda: self.cloud.glance.bytes_sent(path) > 0, 5, "the request log shows the read")
        except AssertionError:
            return 0.0
        return self.cloud.glance.bytes_sent(path) / (mib * MIB)

    # -- Mimeo ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def mimeo(self, stores: list, serve: bool = True, **sections: dict) -> Iterator[Mimeo]:
        """`mimeo serve` with every setting at its default, these stores and `sections` beside; its first scan is over. Afterwards nothing
        of it is left, nor of the objects that it made."""
        cache = ROOT / ".cache"
        with tempfile.TemporaryDirectory(dir=cache, prefix="bench-") as directory:
            program = Mimeo(Path(directory), self.cloud)
            program.extra_env["TMPDIR"] = directory
            program.use(*stores)
            try:
                program.serve(**dict.fromkeys(QUICK), **sections)
                eventually(lambda: program.overview()["last_scan"], 60, "the first scan is over")
                if not serve:
                    program.stop()
                yield program
            except Exception as error:
                error.add_note(f"--- the end of mimeo's log ---\n{tail(program.log)}\n{seen_by(program)}")
                raise
            finally:
                program.discard()
                self.sweep()

    # -- room ----------------------------------------------------------------------------------------------------------

    def has_room(self, mib: int, what: str) -> bool:
        """Whether so much fits into memory. What does not is left out, and said."""
        memory = psutil.virtual_memory().available
        free = min(memory, psutil.disk_usage(str(SHARED_MEMORY)).free) if SHARED_MEMORY.is_dir() else memory
        if mib + LEFT_FREE <= free / MIB:
            return True
        say(f"left out: {what} needs {mib + LEFT_FREE} MiB of memory, and {free // MIB} are free")
        return False


def seen_by(program: Mimeo) -> str:
    """What Mimeo itself says of its images, for the reading of a failure."""
    try:
        return f"--- mimeo status ---\n{program.run('status', timeout=20)[1]}"
    except Exception as error:
        return f"(mimeo status: {error})"
