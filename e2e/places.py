"""Every kind of store as a test sees it: the section of mimeo.toml that leads there, what lies there as the server's
own client tells, and an object's bytes."""

from collections.abc import Callable
from pathlib import Path

from cloud import Cloud
from cloud.keystone import SECRET
from cloud.nginx import Exporter
from cloud.rsyncd import Rsyncd
from cloud.sshd import Sshd
from cloud.storage import Storage

# Names in which a shell, a URL, a pattern or a format might take something for something else. rsync takes no space.
ODD = "a'b+%41&ü;$(c)[d]*{e}=@~"
ODDER = f"{ODD} #f?"


class Place:
    def __init__(self, section: dict, secret: str = ""):
        self.section = section
        self.secret = secret  # what no output may show

    def left(self) -> list[str]:
        """The names of all that is there: objects, and what belongs to no finished one."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        raise NotImplementedError

    def written(self, image: str) -> int:
        """How many bytes of an image that is being copied are there."""
        raise NotImplementedError

    def spoil(self, name: str, data: bytes | None) -> None:
        """Puts other bytes into an object's place, or takes it away, as its store would never do by itself."""
        raise NotImplementedError


class Directory(Place):
    """What ends as files on this machine, however it comes there; `aside` is where files wait to be sent."""

    def __init__(self, section: dict, path: Path, secret: str = "", aside: Path | None = None):
        super().__init__(section, secret)
        self.path, self.aside = path, aside

    def left(self):
        waiting = self.aside.rglob("*") if self.aside else []
        return [path.name for path in (*self.path.iterdir(), *waiting) if path.is_file()]

    def read(self, name):
        return (self.path / name).read_bytes()

    def written(self, image):
        return sum(path.stat().st_size for path in self.path.iterdir() if image in path.name)

    def spoil(self, name, data):
        if data is None:
            (self.path / name).unlink()
        else:
            (self.path / name).write_bytes(data)


class Rbd(Place):
    def __init__(self, storage: Storage, **more):
        self.ceph = storage.ceph
        conf = str(self.ceph.conf)
        section = {"type": "rbd", "pool": self.ceph.pool, "user": "mimeo", "conf_file": conf}
        super().__init__({**section, **more}, self.ceph.keys["client.mimeo"])

    def left(self):
        return [*self.ceph.images(self.section["pool"]), *self.ceph.trash()]

    def read(self, name):
        return self.ceph.read(f"{self.section['pool']}/{name}", "snap")

    def written(self, image):
        names = [name for name in self.ceph.images() if name.startswith(image)]
        return sum(int(self.ceph.metadata(name).get("mimeo.written", 0)) for name in names)

    def spoil(self, name, data):
        self.ceph.replace(name, "snap", data)


class S3(Place):
    def __init__(self, storage: Storage, **more):
        self.gateway = storage.gateway
        section = {
            "type": "s3", "endpoint": self.gateway.url, "bucket": self.gateway.bucket,
            "access_key": self.gateway.access_key, "secret_key": self.gateway.secret_key,
        }
        super().__init__({**section, **more}, self.gateway.secret_key)

    def left(self):
        return [*self.gateway.keys(), *(upload["Key"] for upload in self.gateway.uploads())]

    def read(self, name):
        return self.gateway.s3().get_object(Bucket=self.gateway.bucket, Key=name)["Body"].read()

    def written(self, image):
        begun = [upload for upload in self.gateway.uploads() if upload["Key"].startswith(image)]
        parts = [part for upload in begun for part in self.gateway.parts(upload)]
        return sum(part["Size"] for part in parts)

    def spoil(self, name, data):
        where = {"Bucket": self.gateway.bucket, "Key": name}
        if data is None:
            self.gateway.s3().delete_object(**where)
        else:
            self.gateway.s3().put_object(**where, Body=data)


class Swift(Place):
    def __init__(self, storage: Storage, **more):
        self.gateway = storage.gateway
        section = {
            "type": "swift", "auth_url": storage.keystone.url, "project": "service", "user": "glance",
            "password": SECRET, "container": self.gateway.container, "location_credentials": True,
        }
        super().__init__({**section, **more}, f":{SECRET}@")

    def left(self):
        return self.gateway.objects()

    def read(self, name):
        return self.gateway.swift().get_object(self.gateway.container, name)[1]

    def written(self, image):
        return sum(self.gateway.sizes(image).values())

    def spoil(self, name, data):
        """A large object keeps its manifest: its segments are filled anew, and those for which nothing is left go.
        Who takes it away takes the manifest alone, as Swift's own delete does."""
        swift, container = self.gateway.swift(), self.gateway.container
        if data is None:
            swift.delete_object(container, name)
            return
        segments, at = self.gateway.sizes(f"{name}-"), 0
        if not segments:
            swift.put_object(container, name, data)
        for segment, size in sorted(segments.items()):
            if at < len(data):
                swift.put_object(container, segment, data[at:at + size])
            else:
                swift.delete_object(container, segment)
            at += size


def sftp(sshd: Sshd, shown: Exporter, **more) -> Place:
    """By password where the server has one."""
    login = {"password": sshd.password} if sshd.password else {"key_file": str(sshd.key)}
    section = {
        "type": "sftp", "host": sshd.host, "port": sshd.port, "user": sshd.user, "path": str(sshd.objects),
        "read_url": shown.url, "known_hosts": str(sshd.known_hosts), **login,
    }
    return Directory({**section, **more}, sshd.objects, sshd.password or "")


def rsync(rsyncd: Rsyncd, shown: Exporter, spool: Path, **more) -> Place:
    """To a daemon."""
    spool.mkdir()
    section = {
        "type": "rsync", "target": rsyncd.url, "read_url": shown.url, "password": rsyncd.password,
        "spool": str(spool), "spool_size": "1GiB",
    }
    return Directory({**section, **more}, rsyncd.objects, rsyncd.password, spool)


def of_every_kind(
    cloud: Cloud, storage: Storage, sshd: Sshd, rsyncd: Rsyncd, exported: Callable[[Path], Exporter]
) -> dict[str, Place]:
    web, scratch = cloud.nginx[0], sshd.dir.parent / "scratch"
    directory = scratch / "images"
    directory.mkdir(parents=True)
    second = cloud.glance.stores["second"]
    return {
        "http": Directory({"type": "http", "url": web.url}, web.objects),
        "file": Directory({"type": "file", "path": str(directory), "read_url": exported(directory).url}, directory),
        "rbd": Rbd(storage),
        "s3": S3(storage),
        "swift": Swift(storage),
        "sftp": sftp(sshd, exported(sshd.objects)),
        "rsync": rsync(rsyncd, exported(rsyncd.objects), scratch / "spool"),
        "glance": Directory({"type": "glance", "backend": "second"}, second),
    }
