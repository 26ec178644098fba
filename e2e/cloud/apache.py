"""Apache's mod_dav as a plain HTTP store: unlike nginx it takes a ranged PUT, which it writes in place, and keeps what
came of one that was broken off if the object was there before. A plain PUT is written aside and renamed."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .base import Server, free_port, listens

MODULES = "/usr/lib/apache2/modules"


@dataclass
class Put:
    """One PUT that has ended. `first` and `last` are the bytes that its Content-Range names, None where it has none."""

    status: int
    length: int
    first: int | None = None
    last: int | None = None


class Apache(Server):
    name = "apache"

    def __init__(self, parent: Path, name: str | None = None):
        super().__init__(parent, name)
        self.port = free_port()
        self.data = self.dir / "data"
        self.objects = self.data / "images"
        self.objects.mkdir(parents=True)
        (self.dir / "lock").mkdir()
        self.url = f"http://127.0.0.1:{self.port}/images/"
        if os.getuid() == 0:  # Apache refuses to serve as root
            for path in (self.data, self.objects, self.dir / "lock"):
                shutil.chown(path, "www-data", "www-data")
        (self.dir / "httpd.conf").write_text(self._conf())

    def _conf(self) -> str:
        modules = ["mpm_event", "authz_core", "dav", "dav_fs"]
        loads = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in modules)
        user = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
        return f"""
{loads}
{user}
ServerName 127.0.0.1
ServerRoot {self.dir}
DefaultRuntimeDir {self.dir}
PidFile {self.dir}/pid
ErrorLog {self.dir}/error.log
LogFormat "%m %U %>s %{{Content-Length}}i %{{Content-Range}}i" puts
CustomLog {self.dir}/access.log puts
Listen 127.0.0.1:{self.port}
DocumentRoot {self.data}
DavLockDB {self.dir}/lock/db
LimitRequestBody 0
<Directory {self.data}>
    Dav On
    Require all granted
</Directory>
"""

    def command(self):
        return ["/usr/sbin/apache2", "-f", self.dir / "httpd.conf", "-D", "FOREGROUND"]

    def puts(self, image: str) -> list[Put]:
        """The PUTs of an image's objects that have ended, in this order; a broken one has status 400."""
        log = self.dir / "access.log"
        lines = [line.split(" ", 4) for line in log.read_text().splitlines()] if log.exists() else []
        return [
            self._put(int(status), length, content_range)
            for method, path, status, length, content_range in lines
            if method == "PUT" and path.startswith(f"/images/{image}")
        ]

    @staticmethod
    def _put(status: int, length: str, content_range: str) -> Put:
        put = Put(status, int(length) if length != "-" else 0)
        if content_range != "-":
            named = content_range.removeprefix("bytes ").split("/")[0]
            put.first, put.last = (int(byte) for byte in named.split("-"))
        return put

    def ready(self):
        return listens(self.port)
