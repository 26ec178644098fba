"""One node of Ceph: a monitor, a manager and an OSD, with cephx, and two RBD pools as Glance uses them.

Monitor protocol v1 only, on one chosen port; an OSD and a manager take what ports they find. What the OSD stores is a
sparse file in the cloud's directory.
"""

import base64
import json
import os
import struct
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .base import Server, free_port, program, run
from .conf import write_ini

POOL, SECOND_POOL = "images", "fast"
POOLS = f"profile rbd pool={POOL}, profile rbd pool={SECOND_POOL}"
OSD_SIZE = 8 << 30
RBD_CAPS = {"mon": "profile rbd", "osd": POOLS, "mgr": POOLS}
ALL = "allow *"
# Every entity of the cluster and what it may. Glance and Mimeo write the same pools, each with a key of its own.
CAPS: dict[str, dict[str, str]] = {
    "mon.": {"mon": ALL},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": ALL},
    "mgr.a": {"mon": "allow profile mgr", "osd": ALL, "mds": ALL},
    "client.admin": {"mon": ALL, "osd": ALL, "mgr": ALL, "mds": ALL},
    "client.radosgw": {"mon": "allow rwx", "osd": "allow rwx", "mgr": "allow rw"},
    "client.mimeo": RBD_CAPS,
    "client.glance": RBD_CAPS,
}


def new_key() -> str:
    """A cephx key: AES, made now, no nanoseconds, 16 bytes."""
    return base64.b64encode(struct.pack("<hiih", 1, int(time.time()), 0, 16) + os.urandom(16)).decode()


class Daemon(Server):
    """One of Ceph's daemons, in the foreground. A subclass says `kind` and `id`."""

    kind = ""
    id = ""

    def __init__(self, ceph: "Ceph"):
        self.name = f"ceph-{self.kind}"
        super().__init__(ceph.dir)
        self.ceph = ceph
        self.data = self.dir / "data"
        self.data.mkdir()

    def command(self, *more):
        binary = program(self.name, self.name)
        return [binary, "-f", "-c", self.ceph.conf, "-i", self.id, *more]


class Monitor(Daemon):
    kind, id = "mon", "a"

    def prepare(self):
        members = self.dir / "monmap"
        address = f"[v1:127.0.0.1:{self.ceph.port}]"
        tool = program("monmaptool", "ceph-base")
        run([tool, "--create", "--fsid", self.ceph.fsid, "--addv", self.id, address, members])
        run([*self.command("--mkfs"), "--monmap", members, "--keyring", self.ceph.dir / "all.keyring"])

    def ready(self):
        return self.ceph.run("ceph", "--connect-timeout", "5", "mon", "stat", check=False).returncode == 0


class Manager(Daemon):
    """Without it nobody counts what is stored. It is not waited for."""

    kind, id = "mgr", "a"

    def ready(self):
        return True


class Osd(Daemon):
    kind, id = "osd", "0"

    def prepare(self):
        name = str(uuid.uuid4())
        self.ceph.run("ceph", "osd", "new", name)
        run([*self.command("--mkfs"), "--osd-uuid", name])

    def ready(self):
        return self.ceph.json("osd", "stat")["num_up_osds"] == 1


class Ceph:
    def __init__(self, parent: Path):
        self.dir = parent / "ceph"
        self.dir.mkdir()
        self.port = free_port()
        self.fsid = str(uuid.uuid4())
        self.pool = POOL
        self.conf = self.dir / "ceph.conf"
        self.keys = {entity: new_key() for entity in CAPS}
        self.keyrings = {entity: self._keyring(entity) for entity in CAPS}
        write_ini(self.dir / "all.keyring", self._entities(*CAPS))
        self.mon, self.mgr, self.osd = Monitor(self), Manager(self), Osd(self)
        self.sections: dict[str, dict] = {}  # of ceph.conf, for other daemons

    def _entities(self, *entities: str) -> dict[str, dict]:
        return {
            entity: {"key": self.keys[entity], **{f"caps {of}": f'"{cap}"' for of, cap in CAPS[entity].items()}}
            for entity in entities
        }

    def _keyring(self, entity: str) -> Path:
        path = self.dir / f"ceph.{entity.rstrip('.')}.keyring"
        write_ini(path, {entity: {"key": self.keys[entity]}})
        return path

    def configure(self) -> None:
        """Writes ceph.conf, of which every daemon and client, Glance among them, reads its part."""
        write_ini(self.conf, {
            "global": {
                "fsid": self.fsid, "mon_host": f"[v1:127.0.0.1:{self.port}]", "ms_bind_msgr2": "false",
                "public_addr": "127.0.0.1", "cluster_addr": "127.0.0.1",
                **{f"auth_{kind}_required": "cephx" for kind in ("cluster", "service", "client")},
                "keyring": f"{self.dir}/ceph.$name.keyring", "run_dir": self.dir,
                "admin_socket": "", "log_to_stderr": "true", "err_to_stderr": "true", "log_file": "",
                "mon_cluster_log_file": "", "mon_cluster_log_to_stderr": "false",
                "osd_pool_default_size": 1, "osd_pool_default_min_size": 1, "osd_pool_default_pg_num": 4,
                "osd_pool_default_pg_autoscale_mode": "off", "osd_crush_chooseleaf_type": 0,
            },
            "mon": {
                "mon_data": self.mon.data, "keyring": f"{self.mon.data}/keyring", "mon_allow_pool_delete": "true",
                "mon_allow_pool_size_one": "true", "auth_allow_insecure_global_id_reclaim": "false",
                "mon_data_avail_crit": 1, "mon_data_avail_warn": 1, "paxos_propose_interval": 0.1,
                "mgr_initial_modules": "", "debug_rocksdb": 0,
            },
            "mgr": {"mgr_data": self.mgr.data, "mgr_stats_period": 1},
            "osd": {
                "osd_data": self.osd.data, "osd_objectstore": "bluestore", "bluestore_block_size": OSD_SIZE,
                # The file lies in memory already.
                "osd_memory_target": 1 << 30, "bluestore_cache_autotune": "false", "bluestore_cache_size": 64 << 20,
                # A client that died is forgotten after so many seconds: after two of its signs of life.
                "osd_client_watch_timeout": 10,
                "osd_class_update_on_start": "false", "osd_max_scrubs": 0, "debug_rocksdb": 0, "debug_bluestore": 0,
                "debug_bluefs": 0, "debug_bdev": 0,
            },
            **self.sections,
        })

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """From nothing to pools that take images, in some ten seconds."""
        self.configure()
        self.mon.prepare()
        self.mon.start()
        with ThreadPoolExecutor() as pool:
            manager = pool.submit(self.mgr.start)
            self.osd.prepare()
            self.osd.start()
            manager.result()
        for pool in (POOL, SECOND_POOL):
            self.run("ceph", "osd", "pool", "create", pool)
            self.run("rbd", "pool", "init", pool)

    def stop(self) -> None:
        for server in (self.osd, self.mgr, self.mon):
            server.kill()  # nothing of it is needed again, and an OSD takes its time to end

    # -- asking ----------------------------------------------------------------------------------------------------

    def run(self, name: str, *arguments, client: str = "admin", check: bool = True, timeout: float = 120):
        """One of Ceph's commands, as one of its clients."""
        who = ["-c", self.conf, "--name", f"client.{client}"]
        return run([program(name, "ceph-common"), *who, *arguments], check=check, timeout=timeout)

    def json(self, *arguments):
        return json.loads(self.run("ceph", *arguments, "--format", "json").stdout)

    def osd_port(self) -> int:
        """Where clients write and read; Ceph has chosen it."""
        return int(self.json("osd", "dump")["osds"][0]["public_addr"].split("/")[0].rsplit(":", 1)[1])

    def rbd(self, *arguments, client: str = "mimeo", **more) -> str:
        """An `rbd` command in the pool, as Mimeo (or as `glance`, or `admin`)."""
        return self.run("rbd", "--pool", POOL, *arguments, client=client, **more).stdout

    def images(self, pool: str = POOL) -> list[str]:
        return json.loads(self.run("rbd", "ls", pool, "--format", "json").stdout)

    def snapshots(self, image: str) -> list[dict]:
        """`name`, `size` and `protected` ("true" or "false") of each."""
        return json.loads(self.rbd("snap", "ls", image, "--format", "json"))

    def metadata(self, image: str) -> dict[str, str]:
        return json.loads(self.rbd("image-meta", "ls", image, "--format", "json") or "{}")

    def watchers(self, image: str) -> list[dict]:
        """Who has it open, or died with it open a short time ago."""
        return json.loads(self.rbd("status", image, "--format", "json"))["watchers"]

    def trash(self) -> list[str]:
        return [each["name"] for each in json.loads(self.rbd("trash", "ls", "--format", "json"))]

    def add_pool(self, name: str) -> None:
        """One that only the administrator may use."""
        self.run("ceph", "osd", "pool", "create", name, "1")
        self.run("rbd", "pool", "init", name)

    def pools(self) -> set[str]:
        return set(self.json("osd", "pool", "ls"))

    def remove_pool(self, name: str) -> None:
        self.run("ceph", "osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")

    def read(self, image: str, snapshot: str | None = None) -> bytes:
        """All bytes of an image, or of its snapshot."""
        target = self.dir / f"export-{uuid.uuid4().hex}"
        try:
            self.rbd("export", f"{image}@{snapshot}" if snapshot else image, target, "--no-progress")
            return target.read_bytes()
        finally:
            target.unlink(missing_ok=True)

    def replace(self, image: str, snapshot: str, data: bytes | None) -> None:
        """Another image in its place, with such a snapshot; or none."""
        self.rbd("snap", "unprotect", f"{image}@{snapshot}")
        self.rbd("snap", "purge", image, "--no-progress")
        self.rbd("rm", image, "--no-progress")
        if data is not None:
            source = self.dir / f"import-{uuid.uuid4().hex}"
            source.write_bytes(data)
            self.rbd("import", source, image, "--no-progress")
            source.unlink()
            self.rbd("snap", "create", f"{image}@{snapshot}", "--no-progress")
            self.rbd("snap", "protect", f"{image}@{snapshot}")

    def remove_all(self) -> None:
        """Every image of the pool with its snapshots, and what is in the trash."""
        for image in self.images():
            for snapshot in self.snapshots(image):
                if snapshot["protected"] == "true":
                    self.rbd("snap", "unprotect", f"{image}@{snapshot['name']}")
            self.rbd("snap", "purge", image, "--no-progress")
            self.rbd("rm", image, "--no-progress")
        self.rbd("trash", "purge", "--no-progress")
