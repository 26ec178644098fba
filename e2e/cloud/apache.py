"""Apache's mod_dav as a plain HTTP store: unlike nginx it writes in place and takes a ranged PUT."""

import os
import shutil
from pathlib import Path

from .base import Server, free_port, listens

MODULES = "/usr/lib/apache2/modules"


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

    def ready(self):
        return listens(self.port)
