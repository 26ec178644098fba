"""The demo, as a newcomer meets it: no file, no OpenStack, no root; and the real clients against it."""

import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import requests

from clients import bare
from cloud.base import eventually, listens
from mimeo import BINARY, ROOT

ENDPOINT = re.compile(r"--os-endpoint[= ](http://127\.0\.0\.1:(\d+)\S*)")


def test_cargo_run_is_mimeo():
    """README's first command: cargo refuses to choose where a default member has another program."""
    asked = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    told = json.loads(subprocess.run(asked, cwd=ROOT, check=True, capture_output=True).stdout)
    packages = [package for package in told["packages"] if package["id"] in told["workspace_default_members"]]
    targets = [target for package in packages for target in package["targets"]]
    assert [target["name"] for target in targets if "bin" in target["kind"]] == ["mimeo"]


class Demo:
    def __init__(self, home):
        self.out = home / "out"
        self.tmp = home / "tmp"
        self.tmp.mkdir()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "MIMEO_"))}
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [str(BINARY), "demo"], cwd=home, env={**env, "TMPDIR": str(self.tmp), "HOME": str(home)},
                stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )
        found = eventually(self._hint, 60, "the demo tells what to try next")
        self.endpoint, self.port = found.group(1).rstrip("`'\""), int(found.group(2))

    def _hint(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the demo ended with {self.process.returncode}: {self.text()}")
        return ENDPOINT.search(self.text())

    def text(self) -> str:
        return self.out.read_text(errors="replace")

    def openstack(self, *arguments) -> str:
        return bare("openstack", "--os-auth-type", "none", "--os-endpoint", self.endpoint, "image", *arguments)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def demo():
    with tempfile.TemporaryDirectory() as home:
        running = Demo(Path(home))
        try:
            yield running
        finally:
            running.process.kill()
            running.process.wait()


def shown(demo, image: str) -> dict:
    return json.loads(demo.openstack("show", image, "-f", "json"))


def locations(demo, image: str) -> list[dict]:
    return shown(demo, image)["properties"].get("locations", []) or shown(demo, image).get("locations", [])


def test_the_sample_image_is_replicated(demo):
    listed = demo.openstack("list", "-f", "value", "-c", "ID").split()
    assert len(listed) == 1
    assert listed[0] in demo.text() or "registered" in demo.text()
    eventually(lambda: len(mimeo_locations(demo, listed[0])) == 3, 60, "the sample has three locations", pause=1)


def mimeo_locations(demo, image: str) -> list:
    return [loc for loc in locations(demo, image) if "mimeo_store" in loc["metadata"]]


def test_create_list_show_save_set_delete(demo, tmp_path):
    """What the README tells a newcomer to try, with the openstack client."""
    data = os.urandom(3 << 20)
    (tmp_path / "mine.raw").write_bytes(data)
    made = demo.openstack(
        "create", "--file", str(tmp_path / "mine.raw"), "--disk-format", "raw", "--container-format", "bare",
        "-f", "value", "-c", "id", "mine",
    ).strip()
    eventually(lambda: len(mimeo_locations(demo, made)) == 3, 60, "three locations", pause=1)
    assert "mine" in demo.openstack("list")
    demo.openstack("set", "--name", "yours", "--property", "a_key=a value", "--tag", "mark", made)
    after = shown(demo, made)
    assert after["name"] == "yours" and "mark" in after["tags"]
    assert "a value" in str(after["properties"])
    assert len(mimeo_locations(demo, made)) == 3
    demo.openstack("save", "--file", str(tmp_path / "saved.raw"), made)
    assert (tmp_path / "saved.raw").read_bytes() == data
    demo.openstack("delete", made)
    assert made not in demo.openstack("list")


def test_the_glance_client(demo):
    """python-glanceclient with a made-up token."""
    common = ("--os-image-url", demo.endpoint, "--os-auth-token", "x")
    listed = demo.openstack("list", "-f", "value", "-c", "ID").split()
    assert listed[0] in bare("glance", *common, "image-list")
    assert "mimeo_store" in bare("glance", *common, "image-show", listed[0])


def test_the_dashboard_opens_with_the_token_that_is_printed(demo):
    found = re.search(r"in a browser: (http://\S+)\s+sign in with the token (\S+)", demo.text())
    url, token = found.groups()
    with requests.Session() as browser:
        form = re.search(r'name="csrf" value="(\w+)"', browser.get(f"{url}sign-in", timeout=10).text).group(1)
        page = browser.post(f"{url}sign-in", data={"csrf": form, "token": token, "next": "/"}, timeout=10)
    assert page.status_code == 200 and "http1: registered" in page.text


def test_ctrl_c_cleans_up(demo):
    """Comes last: the demo ends at once, and nothing of it stays."""
    assert demo.stop() in (0, 130)
    assert not listens(demo.port)
    assert not list(demo.tmp.iterdir()), "the demo left files behind"
