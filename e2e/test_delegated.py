"""Stores that only Glance can write: Mimeo has Glance copy the image, and keeps its own PATCHes out of the way."""

import os

from cloud.base import eventually

MiB = 1 << 20
GLANCES = {"stores.second": {"type": "glance"}, "stores.shelf": {"type": "glance", "backend": "third"}}


def enabled(mimeo) -> list[str]:
    return [*mimeo.stores, "second", "shelf"]


def wait_all_registered(mimeo, image: str) -> dict:
    def check():
        report = mimeo.status(image)
        assert report["state"] == "registered", report
        return report

    return eventually(check, 90, f"{image} is registered everywhere", pause=0.2)


def test_glance_copies_to_its_own_stores_and_mimeo_to_the_others(cloud, mimeo, images):
    data = os.urandom(8 * MiB)
    mimeo.serve(**GLANCES, enabled_stores=enabled(mimeo))
    image = images.create(data)
    report = wait_all_registered(mimeo, image)
    proofs = {replica["store"]: replica["proof"] for replica in report["replicas"]}
    assert proofs == {**dict.fromkeys(mimeo.stores, "readback"), "second": "glance", "shelf": "glance"}
    shown = images.show(image)
    assert {"main", "second", "third"} <= set(shown["stores"].split(",")), shown["stores"]
    mimeo.assert_complete(image, data)
    for backend in ("second", "third"):
        assert (cloud.glance.stores[backend] / image).read_bytes() == data
    images.delete(image)
    eventually(lambda: not any(mimeo.objects(store, image) for store in mimeo.stores), 30, "the copies are removed")


def test_a_glance_that_shows_no_locations_copies_all_the_same(cloud, mimeo, images):
    """`show_multiple_locations` is off: all stores are Glance's own then."""
    cloud.glance.reconfigured({"DEFAULT": {"show_multiple_locations": "false", "show_image_direct_url": "false"}})
    mimeo.stores = {}
    mimeo.serve(**GLANCES, enabled_stores=["second", "shelf"])
    data = os.urandom(8 * MiB)
    image = images.create(data)
    report = wait_all_registered(mimeo, image)
    assert {replica["store"]: replica["proof"] for replica in report["replicas"]} == {"second": "glance", "shelf": "glance"}
    shown = images.show(image)
    assert {"main", "second", "third"} <= set(shown["stores"].split(",")) and "locations" not in shown, shown
    for backend in ("second", "third"):
        assert (cloud.glance.stores[backend] / image).read_bytes() == data


def test_check_knows_glances_stores(mimeo):
    mimeo.configure(**{**GLANCES, "stores.lost": {"type": "glance"}}, enabled_stores=[*enabled(mimeo), "lost"])
    code, out, err = mimeo.run("check")
    assert code == 1, out + err
    assert "Glance has no store lost; it has" in out, out
    assert "second: Glance's own" in out, out
