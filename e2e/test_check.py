"""`mimeo check` tries the real thing with a tiny image and names each misconfiguration with its cure."""

import os
import shutil

from cloud.base import eventually, free_port


def check(mimeo, **changes) -> tuple[int, str]:
    mimeo.configure(**changes)
    code, out, err = mimeo.run("check", timeout=180)
    return code, out + err


def assert_names(mimeo, *words: str, **changes) -> str:
    code, text = check(mimeo, **changes)
    assert code == 1, text
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"
    return text


def assert_left_nothing(mimeo, images) -> None:
    for hidden in ("false", "true"):
        assert not images.call("GET", f"/images?visibility=all&os_hidden={hidden}")["images"]
    for store, server in mimeo.stores.items():
        assert not [p for p in server.objects.iterdir() if p.is_file()], f"left on {store}"


def test_all_is_well(cloud, mimeo, images):
    """Exit code 0, and nothing is left: no image, no object. Also while `serve` is running."""
    mimeo.use(*cloud.web)
    code, text = check(mimeo)
    assert code == 0, text
    assert_left_nothing(mimeo, images)
    mimeo.serve()
    code, out, err = mimeo.run("check", timeout=180)
    assert code == 0, out + err
    eventually(lambda: assert_left_nothing(mimeo, images) or True, 30, "nothing is left")


def test_every_kind_of_store(mimeo, places, images):
    """Each is written, read and registered, and nothing is left at any server. No secret is shown."""
    mimeo.stores = places
    code, text = check(mimeo, store_defaults={"type": "http", "timeout": "30s"})
    assert code == 0 and "FAIL" not in text, text
    lines = text.splitlines()
    for name, place in places.items():
        steps = [f"{name}: Glance's own"] if name == "glance" else [f"{name}: write and read", f"{name}: register"]
        for step in steps:
            assert any(line.startswith("ok ") and step in line for line in lines), f"{step!r} is not fine in:\n{text}"
        assert not place.secret or place.secret not in text, name
        assert place.left() == [], name
    assert not images.call("GET", "/images?visibility=all")["images"]


def test_show_multiple_locations_is_off(cloud, mimeo, images):
    cloud.glance.reconfigured({"DEFAULT": {"show_multiple_locations": "false"}})
    assert_names(mimeo, "show_multiple_locations = true")
    assert_left_nothing(mimeo, images)


def test_a_host_outside_the_filter(cloud, mimeo, images):
    cloud.glance.reconfigured({"import_filtering_opts": {"allowed_hosts": "[192.0.2.7]"}})
    assert_names(mimeo, "import_filtering_opts", "allowed_hosts", "127.0.0.1")
    assert_left_nothing(mimeo, images)


def test_a_port_outside_the_filter(cloud, mimeo, images):
    cloud.glance.reconfigured({"import_filtering_opts": {"allowed_ports": "[80,443]"}})
    assert_names(mimeo, "import_filtering_opts", "allowed_ports", str(cloud.nginx[0].port))
    assert_left_nothing(mimeo, images)


def test_too_small_a_location_quota(cloud, mimeo, images):
    cloud.glance.reconfigured({"DEFAULT": {"image_location_quota": 2}})
    assert_names(mimeo, "image_location_quota")
    assert_left_nothing(mimeo, images)


def test_no_rights(cloud, mimeo, images):
    """A plain member is no service user: it sees no other project's images."""
    mimeo.credentials = cloud.keystone.os_env("alice")
    assert_names(mimeo, "admin")
    assert_left_nothing(mimeo, images)


def test_wrong_password(cloud, mimeo):
    mimeo.credentials = {**cloud.keystone.os_env("mimeo"), "OS_PASSWORD": "wrong-password"}
    text = assert_names(mimeo, "OS_")
    assert "wrong-password" not in text


def test_without_a_login_the_rest_is_tried_all_the_same(cloud, mimeo, images, faulty):
    mimeo.credentials = {**cloud.keystone.os_env("mimeo"), "OS_PASSWORD": "wrong-password"}
    closed = faulty()
    closed.fault("PUT", "status", 405)
    mimeo.use(cloud.nginx[0], closed)
    broker = {"transport_url": f"rabbit://guest:guest@127.0.0.1:{free_port()}/"}
    text = assert_names(mimeo, "http1: write and read", "http2: write", "transport_url", events=broker)
    assert "everything that was made is removed" in text
    assert_left_nothing(mimeo, images)


def test_no_credentials_at_all(mimeo):
    mimeo.credentials = {}
    code, text = check(mimeo)
    assert code in (1, 2) and "OS_" in text and "clouds.yaml" in text, text


def test_no_image_service(cloud, mimeo):
    cloud.glance.stop()
    assert_names(mimeo, cloud.glance.url)


def test_notifications_do_not_arrive(cloud, mimeo, images):
    """Glance sends to another exchange than the one that Mimeo listens to."""
    assert_names(mimeo, "driver = messagingv2", events={"exchange": "other"})
    assert_left_nothing(mimeo, images)


def test_no_broker(cloud, mimeo):
    port = free_port()
    assert_names(mimeo, "transport_url", events={"transport_url": f"rabbit://guest:guest@127.0.0.1:{port}/"})


def test_a_store_that_cannot_be_written(cloud, mimeo, images, faulty):
    closed = faulty()
    closed.fault("PUT", "status", 405)
    mimeo.use(*cloud.nginx[:2], closed)
    assert_names(mimeo, "http3", "405", "PUT")
    assert_left_nothing(mimeo, images)


def test_a_store_that_is_down(cloud, mimeo, images, faulty):
    """What may be left there has the name of a check, until it is removed."""
    down = faulty()
    down.down()
    mimeo.use(*cloud.nginx[:2], down)
    assert_names(mimeo, "http3")
    assert_left_nothing(mimeo, images)
    # Shows that Mimeo sees all images, without which nothing is removed.
    images.as_user("alice").create(b"hers", name="of-alice")
    mimeo.serve()

    def others() -> list[str]:
        return [row["Name"] for row in mimeo.ask("status") if row["Name"] != "of-alice"]

    [left] = others()
    assert (left or "").startswith("mimeo-check-"), left
    down.up()
    eventually(lambda: not others(), 60, "the sweeper has removed it")


def test_a_url_that_glance_cannot_read(cloud, mimeo, images, faulty):
    """What is written at one address is not there at the address that Glance reads."""
    changes = {"stores.http3": {"read_url": f"http://127.0.0.1:{cloud.nginx[0].port}/elsewhere/"}}
    assert_names(mimeo, "http3", "read_url", **changes)
    assert_left_nothing(mimeo, images)


def test_several_http_backends_under_one_name(cloud, mimeo, images):
    """Glance has two http backends and calls every location by the first one's name. It works, and is told."""
    cloud.glance.reconfigured({"DEFAULT": {"enabled_backends": "main:file,second:file,third:file,web:http,web2:http"}})
    code, text = check(mimeo)
    assert code == 0, text
    assert "web2" in text, text
    assert_left_nothing(mimeo, images)


def test_the_clock(mimeo, images):
    """A clock far from Glance's: tokens and the incremental scan depend on it."""
    library = next((p for p in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
                                "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1") if os.path.exists(p)), None)
    assert library or shutil.which("faketime"), "libfaketime is missing: e2e/setup.sh installs it"
    usual = mimeo.env
    mimeo.env = lambda: {**usual(), "LD_PRELOAD": library, "FAKETIME": "+10m", "DONT_FAKE_MONOTONIC": "1"}
    code, text = check(mimeo)
    mimeo.env = usual
    assert code == 1 and "clock" in text, text
    assert_left_nothing(mimeo, images)
