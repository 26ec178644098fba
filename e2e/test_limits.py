"""Limits: from the configuration, by SIGHUP and through the API; and what a change does to copies that run."""

import os
from datetime import UTC, datetime, timedelta

from cloud.base import always, eventually

KiB, MiB = 1 << 10, 1 << 20

RELOADED, REFUSED = "reloaded; limits in force", "not reloaded"
NO_LIMITS = {"concurrency": None, "bandwidth": None, "hours": []}
USUAL = {"concurrency": 8, "memory": 32 * MiB, "bandwidth": None, "hours": [],
         "stores": {"http1": NO_LIMITS, "http2": NO_LIMITS, "http3": NO_LIMITS}}

# At this pace an image of 16 MiB takes minutes.
SLOW = {"bandwidth": "64KiB/s"}


def told(mimeo, words: str) -> list[str]:
    return [line for line in mimeo.log_lines() if words in line]


def reload(mimeo, words: str) -> list[str]:
    """SIGHUP; then the log lines with these words that it made."""
    before = len(told(mimeo, words))
    mimeo.reload()
    return eventually(lambda: told(mimeo, words)[before:], 30, f"the log says: {words}")


def copying(mimeo, image: str) -> bool:
    return {replica["state"] for replica in mimeo.status(image)["replicas"]} == {"copying"}


def hours_that_are_closed() -> list[str]:
    """For a `serve` whose time zone is UTC."""
    now = datetime.now(UTC)
    return [f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"]


def test_sighup_takes_over_changed_limits(mimeo):
    mimeo.serve()
    assert mimeo.limits() == USUAL
    mimeo.configure(
        transfer={"concurrency": 3, "memory": "3MiB", "bandwidth": "100MiB/s", "hours": ["22:00-06:00"]},
        store_defaults={"bandwidth": "10MB/s"}, **{"stores.http2": {"concurrency": 1, "hours": ["20:00-24:00"]}},
    )
    lines = reload(mimeo, RELOADED)
    assert "concurrency 8 → 3" in lines[0] and "stores.http2.concurrency null → 1" in lines[0], lines
    common = {**NO_LIMITS, "bandwidth": 10_000_000}
    assert mimeo.limits() == {
        "concurrency": 3, "memory": 3 * MiB, "bandwidth": 100 * MiB, "hours": ["22:00-06:00"],
        "stores": {"http1": common, "http3": common,
                   "http2": {"concurrency": 1, "bandwidth": 10_000_000, "hours": ["20:00-24:00"]}},
    }
    assert not told(mimeo, "only after a restart"), "limits need none"
    mimeo.configure()
    reload(mimeo, RELOADED)
    assert mimeo.limits() == USUAL


def test_a_broken_file_changes_nothing(mimeo, images):
    """Each mistake has a line of its own in the log; the old limits stay, and work goes on."""
    mimeo.serve(transfer={"concurrency": 3})
    limits = mimeo.limits()
    mimeo.configure(transfer={"concurrency": 0, "bandwith": "1MiB/s"}, scan={"interval": "soon"})
    reload(mimeo, REFUSED)
    mistakes = eventually(lambda: len(told(mimeo, REFUSED)) == 3 and told(mimeo, REFUSED), 10, "three mistakes")
    for words in ("transfer.concurrency: 0", "did you mean \"bandwidth\"?", "scan.interval: \"soon\""):
        assert [line for line in mistakes if words in line and "ERROR" in line and "mimeo.toml:" in line], mistakes
    mimeo.config_file.unlink()
    lines = reload(mimeo, REFUSED)
    assert "cannot be read" in lines[0], lines
    assert mimeo.limits() == limits and not told(mimeo, RELOADED)
    mimeo.configure(transfer={"concurrency": 3})
    mimeo.wait_registered(images.create(b"still at work"))


def test_other_sections_that_changed_are_named_and_their_secrets_are_not(mimeo, images):
    mimeo.serve()
    url = "rabbit://mimeo:s3cret@127.0.0.1:1/"
    mimeo.configure(scan={"interval": "3s"}, events={"transport_url": url, "queue": "other"}, transfer={"concurrency": 3},
                    **{"stores.http2": {"timeout": "9s"}})
    lines = reload(mimeo, "only after a restart")
    assert lines[0].endswith(": [events], [scan], [stores.http2]"), lines
    assert mimeo.limits()["concurrency"] == 3, "the limits are taken over nevertheless"
    assert not told(mimeo, "s3cret")
    mimeo.wait_registered(images.create(b"by the events as they were"))
    mimeo.configure()
    reload(mimeo, RELOADED)
    assert len(told(mimeo, "only after a restart")) == 1, "the file is again what runs"


def test_a_change_reaches_copies_that_run_and_sighup_does_not_disturb_them(cloud, mimeo, images):
    mimeo.serve(transfer=SLOW)
    data = os.urandom(16 * MiB)
    image = images.create(data)
    eventually(lambda: copying(mimeo, image), 30, "the copies have begun")
    reload(mimeo, RELOADED)
    always(lambda: copying(mimeo, image), 3, "the copies go on, as slowly as before")
    answer = mimeo.patch_limits({"bandwidth": 100 * MiB})
    assert answer.ok and answer.json() == mimeo.limits() == {**USUAL, "bandwidth": 100 * MiB}, answer.text
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    for server in cloud.nginx:
        assert len(server.requests("PUT", image)) == 1, "no copy was begun anew"


def test_sighup_speeds_up_one_store(cloud, mimeo, images):
    """The limit of one store slows that one alone, and is taken over by the copy that runs."""
    mimeo.serve(**{"stores.http2": SLOW})
    data = os.urandom(16 * MiB)
    image = images.create(data)
    mimeo.wait_registered(image, stores=["http1", "http3"])
    assert mimeo.replica(image, "http2")["state"] == "copying"
    mimeo.configure(**{"stores.http2": {"bandwidth": "100MiB/s"}})
    reload(mimeo, RELOADED)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert len(cloud.nginx[1].requests("PUT", image)) == 1, "the copy was not begun anew"


def test_outside_its_hours_nothing_is_started_until_they_change(mimeo, images):
    mimeo.extra_env["TZ"] = "UTC"
    mimeo.serve(transfer={"hours": hours_that_are_closed()})
    data = os.urandom(MiB)
    image = images.create(data)
    eventually(lambda: mimeo.status(image), 30, "the image is known")
    always(lambda: not any(mimeo.objects(store) for store in mimeo.stores), 3, "no copy is started")
    assert mimeo.patch_limits({"hours": None}).ok
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_a_patch_holds_until_sighup_and_a_wrong_one_is_refused(mimeo):
    mimeo.serve(transfer={"bandwidth": "100MiB/s"})
    usual = {**USUAL, "bandwidth": 100 * MiB}
    for wrong, key, cure in [
        ({"bandwith": 1}, "bandwith", "bandwidth"),
        ({"concurrency": 1025}, "concurrency", "1024"),
        ({"concurrency": 512}, "memory", "131072KiB"),
        ({"stores": {"http4": {"bandwidth": 1}}}, "stores.http4", "http1"),
        ({"stores": {"http1": {"hours": ["22-6"]}}}, "stores.http1.hours", "22:00-06:00"),
    ]:
        answer = mimeo.patch_limits({"bandwidth": 1, **wrong})
        assert answer.status_code == 400 and answer.json()["code"] == "bad-request", answer.text
        assert answer.json()["detail"].startswith(f"{key}: ") and cure in answer.json()["detail"], answer.text
    assert mimeo.limits() == usual, "what was refused changed nothing"
    assert mimeo.api("/v1/limits", token="wrong", method="PATCH", json={"bandwidth": None}).status_code == 401
    answer = mimeo.patch_limits({"bandwidth": None, "stores": {"http1": {"concurrency": 2}}})
    http1 = {**NO_LIMITS, "concurrency": 2}
    assert answer.json() == {**USUAL, "stores": {**USUAL["stores"], "http1": http1}} == mimeo.limits()
    reload(mimeo, RELOADED)
    assert mimeo.limits() == usual, "the file is in force again"
