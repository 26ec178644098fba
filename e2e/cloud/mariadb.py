"""MariaDB for Glance: on SQLite concurrent changes of images fail in other ways than in a real cloud."""

import os
import shutil
from pathlib import Path

import pymysql

from .base import Server, free_port, run


class MariaDB(Server):
    name = "mariadb"

    def __init__(self, parent: Path):
        super().__init__(parent)
        self.port = free_port()
        self.data = self.dir / "data"
        self.socket = self.dir / "sock"

    def prepare(self):
        # It clears the directory for temporary files of all tables, also of those that belong to another that starts.
        run([
            "mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal",
            "--skip-test-db", f"--datadir={self.data}", *self._as_root(),
        ], env={**os.environ, "TMPDIR": str(self.dir)})

    @staticmethod
    def _as_root():
        return ["--user=root"] if os.getuid() == 0 else []

    def command(self):
        return [
            shutil.which("mariadbd", path="/usr/sbin:/usr/bin"), "--no-defaults", *self._as_root(),
            f"--datadir={self.data}", f"--socket={self.socket}", f"--port={self.port}",
            "--bind-address=127.0.0.1", f"--pid-file={self.dir}/pid", f"--tmpdir={self.dir}",
            "--character-set-server=utf8mb4", "--max-connections=300",
            # Losing the last second in a power cut is nothing to a test.
            "--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--innodb-buffer-pool-size=128M",
        ]

    def connect(self):
        return pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)

    def ready(self):
        try:
            self.connect().close()
            return True
        except pymysql.err.OperationalError:
            return False

    def create_database(self, name: str) -> str:
        """An empty database and the SQLAlchemy URL to reach it."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"GRANT ALL ON {name}.* TO '{name}'@'127.0.0.1' IDENTIFIED BY 'secret'")
        return f"mysql+pymysql://{name}:secret@127.0.0.1:{self.port}/{name}?charset=utf8"
