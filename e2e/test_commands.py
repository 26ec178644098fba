"""The commands' contracts: exit codes, formats, and what works without a running `serve`."""

import csv
import io
import json
import os
import pty
import stat
import subprocess
import threading

import pytest
import requests

from cloud.base import always, eventually
from mimeo import BINARY

MiB = 1 << 20


def test_replicate_wait_ends_with_0_1_and_3(cloud, mimeo, images, faulty):
    """0 when all is registered; 3 at the time-out while it may still come; 1 as soon as waiting cannot help."""
    broken = faulty()
    mimeo.use(*cloud.nginx[:2], broken)
    mimeo.serve()
    image = images.create(b"fine")
    eventually(lambda: mimeo.status(image), 30, "known")
    code, out, err = mimeo.run("replicate", image, "--wait", "--timeout", "60s")
    assert code == 0, err
    assert "\r" not in out + err, "plain lines in a pipe"
    broken.down()
    image = images.create(b"waiting")
    eventually(lambda: mimeo.status(image), 30, "known")
    code, _, err = mimeo.run("replicate", image, "--wait", "--timeout", "5s")
    assert code == 3, err
    broken.heal()
    code, _, err = mimeo.run("replicate", image, "--wait", "--timeout", "60s")
    assert code == 0, err
    images.deactivate(image)
    other = images.create(b"")
    eventually(lambda: mimeo.status(other), 30, "known")
    code, _, err = mimeo.run("replicate", other, "--wait")
    assert code == 1 and "empty-image" in err, err


def test_replicate_wait_shows_its_progress(cloud, mimeo, images, faulty):
    """In a pipe: a line per store when its state changes, and at last all registered."""
    slow = faulty()
    slow.fault("PUT", "rate", 8 * MiB)
    mimeo.use(*cloud.nginx[:2], slow)
    mimeo.serve()
    image = images.create(os.urandom(16 * MiB))
    eventually(lambda: mimeo.status(image), 30, "known")
    code, out, err = mimeo.run("replicate", image, "--wait")
    assert code == 0, err
    for store in mimeo.stores:
        assert any(store in line and "registered" in line for line in (out + err).splitlines()), out + err


def test_status_formats(mimeo, images):
    mimeo.serve()
    image = images.create(b"shown", name="shown")
    mimeo.wait_registered(image)
    report = mimeo.status("shown")
    assert set(report) == {"id", "name", "state", "replicas"}
    assert report["id"] == image and report["state"] == "registered"
    for replica in report["replicas"]:
        assert set(replica) == {
            "store", "state", "location", "proof", "proven_at", "seen_at", "reason", "next_try"
        }
        assert replica["proof"] == "readback" and replica["reason"] is None
        assert replica["location"] == images.mimeo_locations(image)[replica["store"]]
    for form in ("table", "yaml", "value", "csv"):
        code, out, err = mimeo.run("status", image, "-f", form)
        assert code == 0 and image in out, (form, err)
    rows = list(csv.reader(io.StringIO(mimeo.run("status", "-f", "csv")[1])))
    assert rows[0][:3] == ["ID", "Name", "State"] and rows[1][0] == image
    listed = json.loads(mimeo.run("status", "-f", "json")[1])
    assert [row["ID"] for row in listed] == [image]
    assert mimeo.run("status", image, "-f", "value", "-c", "state")[1].strip() == "registered"


def test_a_column_that_there_is_not_is_refused_before_anything_is_done_or_shown(mimeo):
    mimeo.serve()
    for command in (["status"], ["drain", "http1"], ["plan"], ["check"], ["stores"], ["gc"], ["rules"]):
        code, out, err = mimeo.run(*command, "-c", "Foo", timeout=60)
        assert (code, out) == (2, "") and 'no column "Foo"; known: ' in err, (command, out, err)
    assert not mimeo.api("/v1/stores/http1/drain").json()["since"], "nobody drains it"


def test_a_name_that_several_images_bear(mimeo, images):
    mimeo.serve()
    twins = [images.create(b"1", name="twin"), images.create(b"2", name="twin")]
    for image in twins:
        mimeo.wait_registered(image)
    code, _, err = mimeo.run("status", "twin")
    assert code == 2 and all(image in err for image in twins), err
    code, _, err = mimeo.run("status", "nobody")
    assert code == 1 and "nobody" in err, err


def test_commands_without_serve(mimeo):
    mimeo.configure()
    for command in (["status"], ["stores"], ["replicate", "x"], ["gc"]):
        code, out, err = mimeo.run(*command)
        assert code == 1 and "mimeo serve" in err and not out, (command, err)


def test_plan_and_observe_write_nothing(mimeo, images):
    """`plan` needs no `serve`; `serve --observe` plans, reports, and writes to no store and no image."""
    image = images.create(b"only planned")
    before = images.show(image)
    mimeo.configure()
    planned = mimeo.ask("plan", image)
    assert {row["Store"] for row in planned if row["Action"] == "copy"} == set(mimeo.stores), planned
    mimeo.configure(rules=[{"name": "others", "when": 'image.name == "another"'}, {"name": "gold", "when": "image.properties.tier == 1"}])
    [nowhere] = mimeo.ask("plan", image)
    assert (nowhere["Store"], nowhere["Action"]) == (None, "none"), nowhere
    assert nowhere["Why"].startswith('no rule matches it; rule "gold" cannot be answered for it: '), nowhere
    mimeo.serve("--observe")
    eventually(lambda: {r["store"] for r in mimeo.status(image)["replicas"]} == set(mimeo.stores), 30, "reported")
    always(lambda: not any(mimeo.objects(store) for store in mimeo.stores), 4, "nothing is written")
    assert images.show(image) == before
    code, _, err = mimeo.run("replicate", image, "--wait")
    assert code == 1 and "observe" in err, err


def test_stores(cloud, mimeo, images, faulty):
    broken = faulty()
    broken.down()
    mimeo.use(*cloud.nginx[:2], broken)
    mimeo.serve()
    image = images.create(b"x")
    mimeo.wait_reason(image, "http3", {"store-unreachable"})
    mimeo.wait_registered(image, stores=["http1", "http2"])
    rows = {row["Name"]: row for row in mimeo.ask("stores")}
    assert set(rows) == {"http1", "http2", "http3"}
    assert rows["http1"]["Registered"] == 1 and rows["http1"]["Reason"] is None
    assert "store-unreachable" in rows["http3"]["Reason"]


def test_rules(mimeo, images):
    """Public images everywhere, the rest on any one store; those that no rule matches are left alone."""
    mimeo.serve(rules=[
        {"name": "public", "when": 'image.visibility == "public"', "stores": ["http1", "http2", "http3"]},
        {"name": "tagged", "when": '"keep" in image.tags', "stores": ["http2", "http3"], "copies": 1},
    ])
    public = images.create(b"public", visibility="public")
    tagged = images.create(b"tagged", visibility="private", tags=["keep"])
    ignored = images.create(b"ignored", visibility="private")
    mimeo.wait_registered(public)
    eventually(lambda: mimeo.status(tagged)["state"] == "registered", 60, "one copy of the tagged one")
    assert len(images.mimeo_locations(tagged)) == 1
    eventually(lambda: mimeo.status(ignored)["state"] == "unmanaged", 30, "left alone")
    assert not any(mimeo.objects(store, ignored) for store in mimeo.stores)
    images.set(ignored, visibility="public")
    mimeo.wait_registered(ignored)


def test_the_api_is_closed_without_the_token(mimeo):
    mimeo.serve()
    token_file = mimeo.dir / "mimeo.token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert requests.get(f"http://127.0.0.1:{mimeo.port}/v1/overview", timeout=10).status_code == 401
    assert mimeo.api("/v1/overview", token="wrong").status_code == 401
    assert mimeo.api("/v1/overview").status_code == 200
    token = token_file.read_text().strip()
    mimeo.restart()
    assert token_file.read_text().strip() == token, "a restart keeps the token"
    for secret in (token, mimeo.credentials["OS_PASSWORD"] + "@", "guest:guest"):
        assert secret not in mimeo.log.read_text()


def told(mimeo, *arguments: str, terminal: bool, **env: str) -> str:
    """All that a command writes, to a terminal or into a pipe. It is told to end when it has written its first line."""
    ours, its = pty.openpty() if terminal else os.pipe()
    usual = {name: value for name, value in mimeo.env().items() if not name.startswith(("NO_COLOR", "CLICOLOR"))}
    process = subprocess.Popen(
        [BINARY, "--config", mimeo.config_file, *arguments], env={**usual, "TERM": "xterm-256color", **env},
        cwd=mimeo.dir, stdin=subprocess.DEVNULL, stdout=its, stderr=its, start_new_session=True,
    )
    os.close(its)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            if b"\n" in piece and b"\n" not in said:
                process.terminate()
            said += piece
    except OSError:
        pass  # a terminal that nobody has open any more
    finally:
        os.close(ours)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
    return said.decode()


@pytest.mark.parametrize("arguments", [["serve"], ["--help"], ["status", "--no-such-option"]], ids=" ".join)
def test_colours_are_for_a_terminal_and_for_whom_they_please(mimeo, arguments):
    """The log, the help, and what is said of a mistake: coloured on a terminal, plain with NO_COLOR, and in a pipe."""
    mimeo.configure(events=None)
    assert "\x1b[" in told(mimeo, *arguments, terminal=True)
    for plain in (told(mimeo, *arguments, terminal=True, NO_COLOR="1"), told(mimeo, *arguments, terminal=False)):
        assert "\n" in plain and "\x1b" not in plain, plain


def test_two_serves_on_one_ledger(mimeo, images):
    """The second one is refused, and the first goes on."""
    mimeo.serve()
    code: list[int] = []
    second = threading.Thread(target=lambda: code.append(mimeo.run("serve", timeout=60)[0]), daemon=True)
    second.start()
    second.join(60)
    assert code and code[0] in (1, 2)
    image = images.create(b"still there")
    mimeo.wait_registered(image)
