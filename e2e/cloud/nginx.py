"""nginx as a plain HTTP store: PUT, GET, HEAD and DELETE of files, from the http_dav module."""

import os
from pathlib import Path

from .base import Server, free_port, listens


class Nginx(Server):
    name = "nginx"

    def __init__(self, parent: Path, name: str, port: int | None = None):
        super().__init__(parent, name)
        self.port = port or free_port()
        self.data = self.dir / "data"
        (self.data / "images").mkdir(parents=True)
        # An upload is written here and renamed into place when it is whole: the same file system, or nginx copies.
        (self.dir / "tmp").mkdir()
        self.objects = self.data / "images"
        self.url = f"http://127.0.0.1:{self.port}/images/"
        self.access_log = self.dir / "access.log"
        (self.dir / "nginx.conf").write_text(self._conf())

    def _conf(self) -> str:
        user = "user root;" if os.getuid() == 0 else ""
        return f"""
{user}
daemon off;
worker_processes 1;
pid {self.dir}/pid;
error_log {self.dir}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format short '$time_iso8601 $request_method $uri $status $body_bytes_sent $http_range';
    access_log {self.access_log} short;
    client_body_temp_path {self.dir}/tmp;
    proxy_temp_path {self.dir}/tmp-proxy;
    fastcgi_temp_path {self.dir}/tmp-fastcgi;
    uwsgi_temp_path {self.dir}/tmp-uwsgi;
    scgi_temp_path {self.dir}/tmp-scgi;
    sendfile on;
    tcp_nopush on;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{self.port};
        root {self.data};
        location / {{ dav_methods PUT DELETE; create_full_put_path on; }}
    }}
}}
"""

    def command(self):
        return ["/usr/sbin/nginx", "-c", self.dir / "nginx.conf", "-p", self.dir, "-e", self.dir / "error.log"]

    def ready(self):
        return listens(self.port)

    def requests(self, method: str, name: str = "") -> list[str]:
        """The lines of the access log for one method, and for objects whose path contains `name`."""
        if not self.access_log.exists():
            return []
        lines = self.access_log.read_text().splitlines()
        return [line for line in lines if line.split()[1] == method and name in line.split()[2]]


class Exporter(Nginx):
    """Shows a directory that others write to: read-only, as Glance reads what comes by SFTP, rsync or a mount."""

    def __init__(self, parent: Path, name: str, shown: Path, port: int | None = None):
        self.shown = shown
        super().__init__(parent, name, port)
        self.objects = shown

    def _conf(self) -> str:
        location = "location / { dav_methods PUT DELETE; create_full_put_path on; }"
        assert location in super()._conf()
        return super()._conf().replace(location, f"location /images/ {{ alias {self.shown}/; }}")
