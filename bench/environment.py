"""What the numbers come from: versions and the machine, without its name."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from mimeo import BINARY

from .content import MIB

PROGRAMS = {
    "Mimeo": [BINARY, "--version"], "nginx": ["/usr/sbin/nginx", "-v"], "Apache": ["/usr/sbin/apache2", "-v"],
    "rclone": ["rclone", "version"], "curl": ["curl", "--version"], "OpenSSL": ["openssl", "version"],
    "Ceph": ["rbd", "--version"], "OpenSSH": ["ssh", "-V"], "rsync": ["rsync", "--version"],
}


def environment() -> dict[str, str]:
    found = {"cores": str(os.cpu_count()), "CPU": _cpu(), "memory": f"{psutil.virtual_memory().total // MIB} MiB"}
    found["Linux"] = platform.release().split("-")[0]
    found |= {name: _version(command) for name, command in PROGRAMS.items()}
    return {**found, "Glance": version("glance"), "swiftclient": version("python-swiftclient")}


def _cpu() -> str:
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return match.group(1) if match else platform.machine()


def _version(command: list) -> str:
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=30)
    except OSError:
        return "missing"
    match = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return match.group(0) if match else "unknown"
