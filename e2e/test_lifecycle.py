"""An image that changes or goes while it is copied: a clean end, nothing left over."""

import json
import os
import subprocess

import pytest

from cloud.base import always, eventually
from mimeo import BINARY

MiB = 1 << 20


@pytest.fixture
def copying(cloud, mimeo, images, faulty):
    """An image that is being copied: two stores are quick, the third takes bytes at a trickle."""
    slow = faulty()
    slow.fault("PUT", "rate", 2 * MiB)
    mimeo.use(*cloud.nginx[:2], slow)
    mimeo.serve()
    data = os.urandom(24 * MiB)
    image = images.create(data)
    eventually(lambda: slow.requests("PUT", image), 30, "the copy has begun")
    return image, data, slow


def assert_nothing_left(mimeo, image: str, timeout: float = 60) -> None:
    for store in mimeo.stores:
        eventually(lambda s=store: not mimeo.objects(s, image), timeout, f"nothing of {image} is left on {store}")


def test_deleted_in_mid_copy(mimeo, images, copying):
    """No orphan stays on any store, not even one that was still being written."""
    image, _, slow = copying
    images.delete(image)
    slow.heal()
    # A server may publish what it had received in the moment when the upload was broken off: that goes too.
    eventually(lambda: mimeo.run("status", image)[0] == 1, 60, "Mimeo knows nothing of it any more")
    assert_nothing_left(mimeo, image)
    always(lambda: not any(mimeo.objects(s, image) for s in mimeo.stores), 4, "no late copy appears")


def test_deleted_after_registration(cloud, mimeo, images):
    """Glance leaves the bits of HTTP locations behind; after the grace period Mimeo removes them."""
    mimeo.serve(gc={"grace": "4s"})
    kept = images.create(os.urandom(1000))
    image = images.create(os.urandom(MiB))
    for made in (kept, image):
        mimeo.wait_registered(made)
    images.delete(image)
    always(lambda: all(mimeo.objects(s, image) for s in mimeo.stores), 2, "nothing goes within the grace period")
    eventually(lambda: mimeo.status(image)["state"] == "retiring", 20, "the status shows that it retires")
    assert_nothing_left(mimeo, image)
    assert all(mimeo.objects(s, kept) for s in mimeo.stores)


def test_deleted_while_mimeo_is_away(mimeo, images):
    """The event waits in Mimeo's queue until it is back."""
    mimeo.serve()
    image = images.create(os.urandom(MiB))
    mimeo.wait_registered(image)
    mimeo.stop()
    images.delete(image)
    mimeo.start()
    assert_nothing_left(mimeo, image)


def test_deactivated_in_mid_copy(mimeo, images, copying):
    """Glance takes no location of a deactivated image: the status says so, nothing is undone; reactivated, it is
    complete."""
    image, data, slow = copying
    images.deactivate(image)
    mimeo.wait_reason(image, "http3", {"image-deactivated"})
    assert images.show(image)["status"] == "deactivated"
    slow.heal()
    images.reactivate(image)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_hidden_in_mid_copy(mimeo, images, copying):
    """A hidden image is in no ordinary list, and is complete all the same."""
    image, data, slow = copying
    images.set(image, os_hidden=True)
    slow.heal()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert images.show(image)["os_hidden"]


def test_hidden_and_community_images_keep_their_copies(mimeo, images):
    """Images of another project that are hidden, community or private are replicated, and scans that do not list
    them remove nothing."""
    mimeo.serve()
    bob = images.as_user("bob")
    made = {
        bob.create(b"community", visibility="community"): b"community",
        bob.create(b"private", visibility="private"): b"private",
        bob.create(b"hidden", os_hidden=True): b"hidden",
    }
    for image in made:
        mimeo.wait_registered(image)
    always(lambda: all(mimeo.objects(s, i) for s in mimeo.stores for i in made), 6, "scans remove nothing")
    for image, data in made.items():
        mimeo.assert_complete(image, data)


def test_an_upload_that_never_came(mimeo, images):
    """A record without bits is no work and no failure; when the bits come, it is complete."""
    mimeo.serve()
    image = images.record()
    other = images.create(b"other")
    mimeo.wait_registered(other)
    assert not any(mimeo.objects(s, image) for s in mimeo.stores)
    images.upload(image, b"late")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, b"late")


def test_whoever_follows_the_events_goes_on_after_a_restart(mimeo, images):
    """`mimeo events -f` waits for the next `serve`, and misses nothing of what came meanwhile."""
    mimeo.serve()
    told, noted = mimeo.dir / "told", mimeo.dir / "noted"
    follow = [BINARY, "--config", mimeo.config_file, "events", "--follow", "--json"]
    with told.open("w") as out, noted.open("w") as err:
        follower = subprocess.Popen(follow, env=mimeo.env(), stdout=out, stderr=err, stdin=subprocess.DEVNULL)
    try:
        def registered(image) -> bool:
            lines = [json.loads(line) for line in told.read_text().splitlines()]
            return {*mimeo.stores} == {
                line["store"] for line in lines if line["store"] and (line["image"], line["state"]) == (image, "registered")
            }

        first = images.create(b"before")
        eventually(lambda: registered(first), 60, "the first image's copies are told")
        mimeo.stop()
        eventually(lambda: "waiting for it" in noted.read_text(), 30, "it says that nobody answers")
        mimeo.start()
        second = images.create(b"after")
        eventually(lambda: registered(second), 60, "the second image's copies are told")
        assert follower.poll() is None and noted.read_text().count("waiting") == 1
    finally:
        follower.kill()
        follower.wait()
