"""The command-line clients that an operator uses, run as they are."""

import json
import os
import pty
import subprocess

from cloud.keystone import Keystone
from cloud.uwsgi import VENV


def _run(program: str, arguments: tuple, env: dict, timeout: float = 180) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    # A terminal, as a person has: with anything else the glance client takes its standard input for the image.
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [VENV / "bin" / program, *map(str, arguments)], env={**clean, **env}, capture_output=True, text=True,
            timeout=timeout, stdin=terminal,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 0, f"{program} {arguments} ended with {done.returncode}: {done.stdout} {done.stderr}"
    return done.stdout


class Clients:
    def __init__(self, keystone: Keystone, user: str = "admin"):
        self.env = keystone.os_env(user)

    def openstack(self, *arguments) -> str:
        return _run("openstack", arguments, self.env)

    def openstack_json(self, *arguments):
        return json.loads(self.openstack(*arguments, "-f", "json"))

    def glance(self, *arguments) -> str:
        return _run("glance", arguments, self.env)


def bare(program: str, *arguments) -> str:
    """Without a Keystone, as against the demo."""
    return _run(program, arguments, {})
