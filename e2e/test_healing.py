"""Bits rot, servers go away: what is bad is found, withdrawn and made anew, and what does not answer is read last."""

import os

import pytest
import requests

from cloud.base import eventually
from mimeo import NO_SCAN
from test_all_stores import MiB, PATIENT, assert_copies, copies, name_in, only, wait_all_registered


def flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


# Store → what becomes of its copy. Each is found by reading, so what is done to which kind does not matter to Mimeo.
DAMAGE = {
    "http": flipped,
    "file": lambda data: data[:1000],
    "rbd": flipped,
    "s3": lambda data: os.urandom(len(data)),
    "sftp": lambda data: None,
}


def names(images, image: str) -> list[str]:
    """The objects that the image's locations name, in their order; Glance's own copy is not among them."""
    urls = [location["url"] for location in images.show(image)["locations"] if not location["url"].startswith("file:")]
    return [name_in(url, image) for url in urls]


def test_bits_that_rot_on_every_kind_of_store(cloud, storage, mimeo, places, images):
    """One copy is left as it was. Glance's own is gone: what it serves comes from a location of Mimeo's."""
    mimeo.stores = only(places, *DAMAGE, "swift")
    mimeo.serve(store_defaults=PATIENT, **NO_SCAN)
    data = os.urandom(4 * MiB + 7)
    image = images.create(data)
    wait_all_registered(mimeo, image)
    cloud.glance.take_away(image)
    before = copies(mimeo, image)
    for store, damage in DAMAGE.items():
        mimeo.stores[store].spoil(before[store], damage(data))
    assert not gives(images, image, data), "Glance serves what it is given"
    code, _, err = mimeo.run("verify", image, "--wait", "--timeout", "90s")
    assert code == 0, err
    after = copies(mimeo, image)
    assert {store for store in before if before[store] != after[store]} == set(DAMAGE), after
    assert_copies(mimeo, image, data)
    assert set(names(images, image)) == set(after.values()), "the bad ones are withdrawn"
    assert images.download(image) == data
    lists = {store: place.left() for store, place in mimeo.stores.items()}
    eventually(
        lambda: all(before[store] not in mimeo.stores[store].left() for store in DAMAGE), 60,
        f"what is left of the bad ones is removed: {lists}",
    )


def gives(images, image: str, data: bytes) -> bool:
    """Whether a download has the right bytes; one that breaks off in the middle has not."""
    try:
        return images.download(image) == data
    except requests.RequestException:
        return False


def test_a_scrub_finds_it_by_itself(mimeo, images):
    """Within one pass, without anybody asking; and all the while Glance has a location that is right."""
    mimeo.serve(scrub={"period": "10s"}, **NO_SCAN)
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    before = images.mimeo_locations(image)
    [flip], [gone] = mimeo.objects("http1", image), mimeo.objects("http3", image)
    flip.write_bytes(flipped(data))
    gone.unlink()

    def withdrawn():
        shown = images.mimeo_locations(image).values()
        return before["http1"] not in shown and before["http3"] not in shown

    eventually(withdrawn, 30, "both bad copies are withdrawn", pause=0.2)
    assert images.download(image) == data
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert images.mimeo_locations(image)["http2"] == before["http2"]


def test_a_store_that_goes_away_is_read_last_and_comes_back(cloud, mimeo, images):
    """Within a minute. What waits for it is told, and goes on when it is back."""
    mimeo.serve(**NO_SCAN)
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)

    def order() -> list[str]:
        shown = images.show(image)["locations"]
        return [location["metadata"]["mimeo_store"] for location in shown if "mimeo_store" in location["metadata"]]

    def health() -> dict:
        return next(store for store in mimeo.ask("stores") if store["Name"] == "http1")

    assert order() == ["http1", "http2", "http3"]
    cloud.nginx[0].stop()
    try:
        eventually(lambda: order() == ["http2", "http3", "http1"], 60, "http1 is read last", pause=0.5)
        assert mimeo.replica(image, "http1")["state"] == "suspect"
        assert mimeo.reason(image, "http1") == "store-down"
        assert (health()["State"], mimeo.overview()["stores_down"]) == ("down", ["http1"])
        assert health()["Since"] and health()["Reason"]
        late = images.create(data)
        mimeo.wait_registered(late, stores=["http2", "http3"])
        mimeo.wait_reason(late, "http1", {"store-down"})
    finally:
        cloud.nginx[0].start()
    mimeo.wait_registered(image)
    mimeo.wait_registered(late)
    eventually(lambda: order() == ["http1", "http2", "http3"], 30, "its place is its own again")
    assert health()["State"] == "up"
    mimeo.assert_complete(late, data)


@pytest.mark.parametrize("wait", [True, False])
def test_verify_tells_how_it_ends(cloud, mimeo, images, wait):
    mimeo.serve(**NO_SCAN)
    image = images.create(b"verified")
    mimeo.wait_registered(image)
    proven = {replica["store"]: replica["proven_at"] for replica in mimeo.status(image)["replicas"]}

    def renewed() -> bool:
        return all(replica["proven_at"] > proven[replica["store"]] for replica in mimeo.status(image)["replicas"])

    code, _, err = mimeo.run("verify", image, *(["--wait"] if wait else []))
    assert code == 0, err
    if wait:
        assert renewed()
        cloud.nginx[1].stop()
        try:
            code, _, err = mimeo.run("verify", image, "--wait", "--timeout", "3s")
            assert code == 3, err
            assert mimeo.reason(image, "http2") == "store-unreachable"
        finally:
            cloud.nginx[1].start()
    else:
        eventually(renewed, 30, "all proofs are new")
