"""OpenSSH's server for SFTP and for rsync over ssh, and an agent that holds the client's key.

Run by root it has a user of its own, with a password. Nothing of that user is in the machine's files: the server sees
copies of passwd and shadow in a mount namespace of its own, which ends with it. Run by anybody else the user is who
runs the tests, and there is no password.
"""

import getpass
import os
import secrets
import shlex
import shutil
from pathlib import Path

from .base import Server, free_port, listens, program, run

USER = "mimeo-e2e"
USER_ID = 64738  # of no package and below the kernel's "nobody"


class Sshd(Server):
    name = "sshd"

    def __init__(self, parent: Path, name: str | None = None):
        super().__init__(parent, name)
        self.port = free_port()
        self.host = "127.0.0.1"
        self.as_root = os.getuid() == 0
        self.user = USER if self.as_root else getpass.getuser()
        self.password = secrets.token_hex(8) if self.as_root else None
        self.objects = self.dir / "images"  # writable for the user
        self.key = self.dir / "client_key"
        self.known_hosts = self.dir / "known_hosts"
        self.conf = self.dir / "sshd_config"
        self.askpass = self.dir / "askpass"

    def prepare(self) -> None:
        self.objects.mkdir()
        for key in (self.key, self.dir / "host_key"):
            self.new_key(key)
        shutil.copy(self.key.with_suffix(".pub"), self.dir / "authorized_keys")
        host = (self.dir / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {host}")
        self.conf.write_text(self._conf())
        if self.as_root:
            os.chown(self.objects, USER_ID, USER_ID)
            self._add_user()
            self.askpass.write_text(f"#!/bin/sh\necho {self.password}\n")
            self.askpass.chmod(0o700)

    @staticmethod
    def new_key(path: Path) -> None:
        run([program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-C", "mimeo-e2e", "-f", path])

    def _conf(self) -> str:
        return f"""
ListenAddress {self.host}:{self.port}
HostKey {self.dir}/host_key
PidFile {self.dir}/pid
AuthorizedKeysFile {self.dir}/authorized_keys
AllowUsers {self.user}
PubkeyAuthentication yes
PasswordAuthentication {"yes" if self.as_root else "no"}
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
LogLevel VERBOSE
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp -l INFO
"""

    def _add_user(self) -> None:
        hashed = run([program("openssl", "openssl"), "passwd", "-6", self.password]).stdout.strip()
        account = f"{USER}:x:{USER_ID}:{USER_ID}::{self.dir}:/bin/sh\n"
        (self.dir / "passwd").write_text(Path("/etc/passwd").read_text() + account)
        shadow = self.dir / "shadow"
        shadow.touch(mode=0o600)
        shadow.write_text(f"root:*:::::::\nsshd:*:::::::\n{USER}:{hashed}:20000::::::\n")

    def command(self):
        serve = [program("sshd", "openssh-server"), "-D", "-e", "-f", self.conf]
        if not self.as_root:
            return serve
        # sshd wants an empty directory in /run, where this namespace has a file system of its own too.
        script = f"""
            mount --bind {self.dir}/passwd /etc/passwd
            mount --bind {self.dir}/shadow /etc/shadow
            mount -t tmpfs -o mode=755 none /run
            mkdir -m 755 /run/sshd
            exec {shlex.join(map(str, serve))}
        """
        # In a process namespace too: every session is in a process group of its own, and would outlive the server.
        apart = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return [program("unshare", "util-linux"), *apart, "sh", "-ec", script]

    def stop(self):
        """At once, with all its sessions."""
        self.kill()

    def ready(self):
        return listens(self.port)

    def remove_all(self) -> None:
        for path in self.objects.iterdir():
            path.unlink()

    # -- what a client needs ---------------------------------------------------------------------------------------

    def options(self, *more: str) -> list[str]:
        """Options for ssh and sftp alike. A host that is not known is refused, and nobody is asked for anything."""
        named = [
            f"Port={self.port}", f"User={self.user}", f"UserKnownHostsFile={self.known_hosts}",
            "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes", *more,
        ]
        return ["-F", "/dev/null", *[word for option in named for word in ("-o", option)]]

    def with_key(self) -> list[str]:
        return self.options(f"IdentityFile={self.key}", "IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes")

    def with_password(self) -> list[str]:
        """Goes with `password_env`. A batch of sftp would allow no password."""
        return self.options("PreferredAuthentications=password", "NumberOfPasswordPrompts=1", "BatchMode=no")

    def password_env(self) -> dict[str, str]:
        """ssh asks a program for the password, and no terminal."""
        return {**os.environ, "SSH_ASKPASS": str(self.askpass), "SSH_ASKPASS_REQUIRE": "force"}

    def sftp(self, *commands: str, options: list[str] | None = None, env: dict | None = None):
        """OpenSSH's client with a batch of commands; by key unless other options are given."""
        client = [program("sftp", "openssh-client"), *(options or self.with_key()), "-b", "-", self.host]
        return run(client, env=env, input="\n".join(commands) + "\n")

    def rsync(self, *arguments):
        """rsync over ssh by key; `Sshd.remote` names its other side."""
        shell = shlex.join(["ssh", *self.with_key()])
        return run([program("rsync", "rsync"), "--rsh", shell, *arguments])

    def remote(self, name: str) -> str:
        return f"{self.host}:{self.objects}/{name}"


class Agent(Server):
    """An ssh-agent that holds a server's client key."""

    name = "ssh-agent"

    def __init__(self, parent: Path, sshd: Sshd):
        super().__init__(parent)
        self.sshd = sshd
        self.socket = self.dir / "socket"

    def command(self):
        return [program("ssh-agent", "openssh-client"), "-D", "-a", self.socket]

    def ready(self):
        return self.socket.exists()

    def start(self):
        self.socket.unlink(missing_ok=True)
        super().start()
        run([program("ssh-add", "openssh-client"), "-q", self.sshd.key], env=self.client_env())

    def client_env(self) -> dict[str, str]:
        return {**os.environ, "SSH_AUTH_SOCK": str(self.socket)}
