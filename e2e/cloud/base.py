"""What all servers of the test cloud share: a directory, a log, a life of start, stop, restart and kill, and
waiting that ends with a reason.

Every server runs in a session of its own, so that Ctrl-C in a terminal reaches only pytest, which then stops the
servers in order; and is ended by its own process id or group, never by name.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# Of several test runs at once on a machine, each takes its ports from a range of its own (`gw0`, `gw1` …).
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = range(20000 + _worker % 4 * 3000, 23000 + _worker % 4 * 3000)
_given_ports: set[int] = set()
_live: list["Server"] = []


def free_port() -> int:
    """A port nobody listens on. From below the kernel's ephemeral range, where no outgoing connection can take it
    between this choice and the server's start."""
    while True:
        port = random.choice(_ports)
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_ports.add(port)
        return port


def eventually(check, timeout: float, why: str, pause: float = 0.1):
    """Calls `check` until it gives something true, which is returned. An AssertionError inside counts as "not yet"
    and is shown when the time is up; any other error ends the wait at once."""
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            last = check()
            if last:
                return last
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {why}; last seen: {last!r}")
        time.sleep(pause)


def always(check, duration: float, why: str, pause: float = 0.2) -> None:
    """Calls `check` again and again for a time, and fails as soon as it is not true: for what must not happen."""
    deadline = time.monotonic() + duration
    while time.monotonic() < deadline:
        assert check(), f"no longer true: {why}"
        time.sleep(pause)


def tail(path: Path, lines: int = 40) -> str:
    if not path.exists():
        return f"(no {path.name})"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def program(name: str, package: str) -> str:
    """Where a program is. None is skipped for its absence: that is an error which says what to install."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if not found:
        raise RuntimeError(f"{name} is missing: run e2e/setup.sh, or install Debian's package {package}")
    return found


def run(command: list, env: dict | None = None, timeout: float = 120, check: bool = True, **more):
    """A command that is expected to end; its output is in the error when it fails."""
    done = subprocess.run(
        [str(c) for c in command], env=env, timeout=timeout, capture_output=True, text=True, **more
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


class Server:
    """One server process. A subclass says `command`, and `ready` when it can be used."""

    name = "server"
    start_timeout = 60.0
    stop_timeout = 20.0
    stop_signal = signal.SIGTERM

    def __init__(self, parent: Path, name: str | None = None):
        self.name = name or self.name
        self.dir = parent / self.name
        self.dir.mkdir(parents=True)
        self.log = self.dir / f"{self.name}.log"
        self.process: subprocess.Popen | None = None

    def command(self) -> list:
        raise NotImplementedError

    def env(self) -> dict:
        return dict(os.environ)

    def ready(self) -> bool:
        raise NotImplementedError

    def prepare(self) -> None:
        """What is done once, before the first start."""

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        if self.running():
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(c) for c in self.command()],
                env=self.env(), cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )
        _live.append(self)
        try:
            eventually(self._ready_or_dead, self.start_timeout, f"{self.name} is ready")
        except AssertionError as error:
            self.kill()
            raise RuntimeError(f"{error}\n{self.name} says:\n{tail(self.log)}") from None

    def _ready_or_dead(self) -> bool:
        if not self.running():
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{tail(self.log)}")
        return self.ready()

    def stop(self) -> None:
        """Asks to end, waits, and only then forces."""
        if self.running():
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(self.stop_timeout)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole process group of this server, and no trace left of it."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        group = self.process.pid
        self.process.wait()
        self._wait_for_group(group)
        self.process = None
        if self in _live:
            _live.remove(self)

    @staticmethod
    def _wait_for_group(group: int) -> None:
        """A worker that takes its time to die holds the port that the next start needs."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            time.sleep(0.02)

    def restart(self) -> None:
        self.stop()
        self.start()


def kill_all() -> None:
    """The last resort when the process ends in an unforeseen way."""
    for server in reversed(list(_live)):
        server.kill()
