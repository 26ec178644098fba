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
    # Without die-on-term SIGTERM means "reload" to uwsgi; SIGINT ends it at once, with no wait for open requests.
    stop_signal = signal.SIGINT

    def command(self):
        return [
            VENV / "bin/uwsgi", "--module", self.module, "--http-socket", f"127.0.0.1:{self.port}",
            "--master", "--processes", self.processes, "--threads", self.threads, "--enable-threads",
            "--lazy-apps", "--http-chunked-input", "--virtualenv", VENV, "--need-app", "--die-on-term",
            "--buffer-size", 65535, "--listen", 100, "--so-keepalive", "--disable-logging",
        ]
