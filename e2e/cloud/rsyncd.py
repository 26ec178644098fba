"""rsync's own daemon, with one module that asks for a name and a password."""

import os
import secrets
from pathlib import Path

from .base import Server, free_port, listens, program, run


class Rsyncd(Server):
    name = "rsyncd"
    module = "images"
    user = "mimeo"

    def __init__(self, parent: Path, name: str | None = None):
        super().__init__(parent, name)
        self.port = free_port()
        self.url = f"rsync://{self.user}@127.0.0.1:{self.port}/{self.module}/"
        self.objects = self.dir / "images"
        self.objects.mkdir()
        self.password = secrets.token_hex(8)
        self.password_file = self._secret("password", f"{self.password}\n")  # what a client is given
        self.secrets_file = self._secret("secrets", f"{self.user}:{self.password}\n")
        self.conf = self.dir / "rsyncd.conf"
        self.conf.write_text(self._conf())

    def _secret(self, name: str, text: str) -> Path:
        path = self.dir / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def _conf(self) -> str:
        return f"""
pid file = {self.dir}/pid
lock file = {self.dir}/lock
log file = {self.dir}/transfers.log
transfer logging = yes
use chroot = no
reverse lookup = no
uid = {os.getuid()}
gid = {os.getgid()}

[{self.module}]
path = {self.objects}
read only = no
auth users = {self.user}
secrets file = {self.secrets_file}
"""

    def command(self):
        binary = program("rsync", "rsync")
        return [binary, "--daemon", "--no-detach", "--config", self.conf, "--address", "127.0.0.1", "--port", self.port]

    def ready(self):
        return listens(self.port)

    def client(self, *arguments):
        """rsync as a client with the password; `Rsyncd.url` is its other side."""
        return run([program("rsync", "rsync"), f"--password-file={self.password_file}", *arguments])

    def remove_all(self) -> None:
        for path in self.objects.iterdir():
            path.unlink()
