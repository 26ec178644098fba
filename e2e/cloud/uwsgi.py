"""uwsgi, which runs Keystone and Glance: neither has a server of its own any more."""

import signal
import sys
from pathlib import Path

from .base import Server

VENV = Path(sys.prefix)


class Uwsgi(Server):
    """A subclass gives `module`, `processes`, `threads` and `port`."""

    module = ""
    processes = 2
    threads = 8
    extra: tuple = ()
    # Without die-on-term SIGTERM means "reload" to uwsgi; SIGINT ends it at once, with no wait for open requests.
    stop_signal = signal.SIGINT

    def __init__(self, parent: Path):
        super().__init__(parent)
        self.request_log = self.dir / "requests"

    def command(self):
        return [
            VENV / "bin/uwsgi", "--module", self.module, "--http-socket", f"127.0.0.1:{self.port}",
            "--master", "--processes", self.processes, "--threads", self.threads, "--enable-threads",
            "--lazy-apps", "--virtualenv", VENV, "--need-app", "--die-on-term",
            # glanceclient sends chunks of 1 MiB, and uwsgi takes no chunk above its limit, of 1 MiB with its head.
            "--http-chunked-input", "--chunked-input-limit", 4 << 20,
            "--buffer-size", 65535, "--listen", 100,
            # uwsgi closes after each answer. Unless it says so, a client reuses the connection and is reset.
            "--add-header", "Connection: close",
            "--req-logger", f"file:{self.request_log}",
            "--log-format", "%(method) %(uri) %(status) %(msecs)ms/%(rsize)B %(uagent)",
            *self.extra,
        ]

    def requests(self, method: str, path: str = "", agent: str | None = None, unlike: str | None = None) -> list[str]:
        """The answered requests of one method, by a caller whose User-Agent has `agent` in it, or has not `unlike`."""
        if not self.request_log.exists():
            return []
        found = []
        for line in self.request_log.read_text(errors="replace").splitlines():
            parts = line.split(" ", 4)
            caller = parts[4] if len(parts) > 4 else ""
            if len(parts) < 4 or parts[0] != method or path not in parts[1]:
                continue
            if (agent is None or agent in caller) and (unlike is None or unlike not in caller):
                found.append(line)
        return found

    def bytes_sent(self, path: str) -> int:
        """The bytes of all bodies that a GET of `path` has brought, as the server counts them."""
        return sum(int(line.split(" ")[3].partition("/")[2].rstrip("B")) for line in self.requests("GET", path))
