"""A machine with a systemd of its own, made from this one and thrown away: its files are this machine's with a layer of
memory above them, so that a package can be installed, started and purged without a trace here. The network is this
machine's, so that it reaches the cloud of the tests.

It needs root, and a kernel that lets it mount; `can_be_made` says whether."""

import os
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path

from .base import Server, eventually, program, run

# What unshare gives it of its own; sysctl and /sys it can only read.
APART = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "--cgroup"]

# Nothing of what this machine would start at its boot is started (`*.wants`), and nothing forbids packages to start what is
# theirs (`policy-rc.d`). The root is changed by pivot_root: units with directories of their own need a real one.
BOOT = """
mount -t tmpfs -o mode=755 machine {layers}
mkdir {layers}/upper {layers}/work {layers}/root
mount -t overlay -o lowerdir=/,upperdir={layers}/upper,workdir={layers}/work overlay {layers}/root
cd {layers}/root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty dev/
ln -s pts/ptmx dev/ptmx
mkdir dev/shm
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
rm -f usr/sbin/policy-rc.d
rm -rf lib/systemd/system/*.wants etc/systemd/system/*.wants
printf '[Unit]\\nDefaultDependencies=no\\n' > etc/systemd/system/still.target
pivot_root . mnt
umount --lazy /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --unit=still.target --show-status=no --log-target=console
"""


def _cgroups() -> Path | None:
    """Where this machine has its unified hierarchy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


def can_be_made() -> bool:
    groups = _cgroups()
    if os.getuid() != 0 or groups is None or not os.access(groups, os.W_OK):
        return False
    layer = """
        mount -t tmpfs none /mnt
        mkdir /mnt/upper /mnt/work
        mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work none /mnt
    """
    return run(["unshare", *APART, "sh", "-ec", layer], check=False).returncode == 0


class Machine(Server):
    name = "machine"

    def __init__(self, parent: Path):
        super().__init__(parent)
        self.cgroup = Path(tempfile.mkdtemp(prefix="mimeo-e2e-", dir=_cgroups()))
        self.layers = self.dir / "layers"
        self.layers.mkdir()

    def command(self):
        boot = BOOT.format(layers=self.layers)
        apart = [program("unshare", "util-linux"), *APART, "sh", "-ec", boot]
        return ["sh", "-ec", f"echo $$ > {self.cgroup}/cgroup.procs; exec {shlex.join(apart)}"]

    def ready(self):
        if self._init() is None:
            return False
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() == "running"

    def stop(self) -> None:
        """At once, with all that runs in it; its layers go with its mounts."""
        self.kill()

    def kill(self) -> None:
        init = self._init() if self.running() else None
        if init:
            os.kill(init, signal.SIGKILL)
        super().kill()
        if self.cgroup.exists():
            eventually(self._forget_cgroup, 10, f"{self.cgroup} is empty")

    def _forget_cgroup(self) -> bool:
        try:
            for place, _, _ in os.walk(self.cgroup, topdown=False):
                os.rmdir(place)
        except OSError:
            return False
        return True

    def _init(self) -> int | None:
        """Its first process, as this machine numbers it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def run(self, *command: str, check: bool = True, **more) -> subprocess.CompletedProcess:
        spaces = ["--mount", "--pid", "--ipc", "--uts", "--cgroup"]
        inside = ["nsenter", "--target", self._init(), *spaces, "--root", "--wdns=/"]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        return run([*inside, *command], env=env, check=check, **more)

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-ec", f"mkdir -p $(dirname {path}); cat > {path}", input=text)
