"""While Glance imports or copies an image itself, it holds the record and writes it back at the end: whatever is
patched meanwhile is wiped. Mimeo sends nothing until it is over."""

import os

from cloud.base import always, eventually

MiB = 1 << 20
TESTS = "python-requests"  # the User-Agent of these tests' own calls; Mimeo's is another


def mimeos_patches(cloud, image: str) -> list[str]:
    return cloud.glance.requests("PATCH", image, unlike=TESTS)


def image_read_from(images, store, data: bytes) -> str:
    """An active image whose bits Glance has to read from `store`."""
    (store.objects / "original").write_bytes(data)
    image = images.record()
    images.add_location(image, store.url + "original")
    return images.wait_status(image, "active")["id"]


def test_no_patch_during_copy_image(cloud, mimeo, images, faulty):
    """Glance's copy-image hangs reading its source; Mimeo has proven copies by then and waits. A foreign rename and
    a foreign location made meanwhile may be wiped by Glance; Mimeo's locations all come afterwards."""
    source = faulty()
    data = os.urandom(4 * MiB)
    image = image_read_from(images, source, data)
    source.fault("GET", "hold")  # the read of copy-image; later reads, Mimeo's among them, are quick
    images.start_import(image, {"name": "copy-image"}, ["main"])
    eventually(lambda: source.requests("GET", "original"), 30, "copy-image reads")
    assert images.show(image).get("os_glance_import_task")
    mimeo.serve()
    for store in mimeo.stores:
        mimeo.wait_reason(image, store, {"image-importing"})
    images.set(image, name="renamed-during-copy")
    (source.objects / "theirs").write_bytes(data)
    images.add_location(image, source.url + "theirs", whose="theirs")
    always(lambda: not mimeos_patches(cloud, image), 5, "Mimeo sends no PATCH during the import")
    assert images.show(image).get("os_glance_import_task"), "the import ended too early for this test"
    source.release()
    eventually(lambda: not images.show(image).get("os_glance_import_task"), 60, "copy-image is over")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_foreign_changes_during_an_import(cloud, mimeo, images, faulty):
    """A web-download that takes its time, with a rename in the middle: no PATCH of Mimeo's before its end, and all
    locations after it."""
    source = faulty()
    data = os.urandom(4 * MiB)
    (source.objects / "original").write_bytes(data)
    source.fault("GET", "hold")
    mimeo.serve()
    image = images.record()
    images.start_import(image, {"name": "web-download", "uri": source.url + "original"}, ["main", "second"])
    eventually(lambda: source.requests("GET", "original"), 30, "the import downloads")
    images.patch_raw(image, [{"op": "replace", "path": "/name", "value": "renamed-during-import"}])
    always(lambda: not mimeos_patches(cloud, image), 5, "Mimeo sends no PATCH during the import")
    source.release()
    images.wait_status(image, "active")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_copy_image_after_registration_loses_nothing(mimeo, images):
    """An operator runs copy-image on an image that Mimeo has registered: its locations are there afterwards."""
    mimeo.serve()
    data = os.urandom(8 * MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    images.start_import(image, {"name": "copy-image"}, ["second", "third"])
    eventually(lambda: {"second", "third"} <= images.glance_stores(image), 60, "Glance copied it")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert len(images.show(image)["locations"]) == 6
