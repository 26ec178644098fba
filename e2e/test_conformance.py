"""The real servers pass the suites that the fakes pass: what a unit test finds with a fake holds for the real thing."""

import os
import subprocess
from pathlib import Path

import pytest

from mimeo import ROOT

PROGRAM = Path(os.environ.get("MIMEO_CONFORMANCE", ROOT / "target/debug/examples/conformance"))


def conforms(*arguments: str, **variables: str) -> str:
    """What the program said."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "MIMEO_"))}
    done = subprocess.run(
        [PROGRAM, *arguments], env={**own, **variables, "RUST_BACKTRACE": "1"}, capture_output=True, text=True,
        timeout=120, stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["nginx1", "nginx2", "nginx3", "apache"])
def test_a_web_server_is_a_store(cloud, name):
    server = next(server for server in cloud.web if server.name == name)
    said = conforms("store", "http", server.url)
    assert ("resumes" in said) == (server is cloud.apache), "Apache takes ranged PUTs, nginx does not"
    assert not list(server.objects.iterdir()), "the suite, or an upload that was cut short, left something behind"


def test_glance_is_a_registry(cloud):
    # Small pages, so that a few images make a walk that follows cursors.
    cloud.glance.reconfigured({"DEFAULT": {"api_limit_max": 3}})
    conforms("registry", cloud.nginx[0].url, **cloud.keystone.os_env("mimeo"))
