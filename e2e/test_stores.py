"""A store that is down, full, slow or lying: never registered, no burden to the others, and complete by itself as
soon as it is well again."""

import os

import pytest

from cloud.base import always, eventually

MiB = 1 << 20
GLANCE = "python-requests"  # the User-Agent of Glance's HTTP driver


def put_status(code: int):
    return lambda store: store.fault("PUT", "status", code)


def answers_500(store):
    for method in ("PUT", "GET", "HEAD"):
        store.fault(method, "status", 500)


# name → how the store is broken, and the reasons that tell so
FAULTS = {
    "down": (lambda s: s.down(), {"store-unreachable"}),
    "500": (answers_500, {"store-error"}),
    "403": (put_status(403), {"store-refused"}),
    "507": (put_status(507), {"store-full"}),
    "stalls": (lambda s: s.fault("PUT", "stall"), {"store-stalled"}),
    "closes-early": (lambda s: s.fault("PUT", "close"), {"store-unreachable", "store-error"}),
    "keeps-a-part": (lambda s: s.fault("PUT", "truncate"), {"proof-mismatch"}),
    "other-bytes": (lambda s: s.fault("GET", "corrupt"), {"proof-mismatch"}),
    "forgets": (lambda s: s.fault("GET", "status", 404), {"object-missing"}),
    "reading-hangs": (lambda s: s.fault("GET", "hang"), {"store-stalled", "store-unreachable"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_store(cloud, mimeo, images, faulty, fault):
    """The other two are registered meanwhile; the broken one is tried again, its reason is in the status, Glance
    never hears of it; healed, it is complete by itself, with no remains of the failed tries."""
    broken = faulty()
    breaks, reasons = FAULTS[fault]
    breaks(broken)
    mimeo.use(*cloud.nginx[:2], broken)
    mimeo.serve()
    data = os.urandom(8 * MiB)
    image = images.create(data)
    mimeo.wait_registered(image, stores=["http1", "http2"])
    mimeo.wait_reason(image, "http3", reasons)
    assert mimeo.status(image)["state"] in ("degraded", "replicating")
    if fault != "down":
        # What was written whole and only could not be read is read again, not sent again.
        again = "GET" if fault == "reading-hangs" else "PUT"
        eventually(lambda: len(broken.requests(again, image)) > 1, 60, "the copy is tried again")
    assert set(images.mimeo_locations(image)) == {"http1", "http2"}
    assert not broken.requests("HEAD", agent=GLANCE), "Glance was given a URL of a copy that was not proven"
    broken.heal()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    for server in cloud.nginx[:2]:
        assert len(server.requests("PUT", image)) == 1, "the others were left alone"


@pytest.mark.parametrize(
    "break_head", [lambda s: s.fault("HEAD", "hang"), lambda s: s.fault("HEAD", "delay", 8)], ids=["black-hole", "slow"]
)
def test_a_url_that_does_not_answer_now_is_not_given_to_glance(cloud, mimeo, images, faulty, break_head):
    """A HEAD that hangs would hang Glance, and with it every other location of the PATCH: the URL is probed first
    and left out, and comes in when it answers."""
    slow = faulty()
    break_head(slow)
    mimeo.use(*cloud.nginx[:2], slow)
    mimeo.serve()
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image, stores=["http1", "http2"])
    mimeo.wait_reason(image, "http3", {"location-unreachable", "store-stalled", "store-unreachable"})
    assert not slow.requests("HEAD", agent=GLANCE)
    slow.heal()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_a_slow_store_delays_nobody(cloud, mimeo, images, faulty):
    """While one store takes bytes at a trickle, the others complete, and so do later images."""
    slow = faulty()
    slow.fault("PUT", "rate", 300_000)
    mimeo.use(*cloud.nginx[:2], slow)
    mimeo.serve(transfer={"memory": "8MiB"})  # 1 MiB for each of 8
    first = images.create(os.urandom(24 * MiB))
    second = images.create(os.urandom(MiB))
    mimeo.wait_registered(first, stores=["http1", "http2"])
    mimeo.wait_registered(second, stores=["http1", "http2"])
    assert mimeo.replica(first, "http3")["state"] != "registered"
    slow.heal()  # a rate is asked for at each read, so the running copies speed up too


def test_all_stores_broken_then_healed(mimeo, images, faulty):
    """No store works: the image waits with its reasons and is complete when they are back."""
    broken = [faulty(), faulty()]
    for store in broken:
        store.down()
    mimeo.use(*broken)
    mimeo.serve()
    data = os.urandom(MiB)
    image = images.create(data)
    for name in mimeo.stores:
        mimeo.wait_reason(image, name, {"store-unreachable"})
    assert mimeo.replica(image, "http1")["next_try"], "it says when it tries again"
    for store in broken:
        store.heal()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_a_damaged_original_is_never_spread(cloud, mimeo, images):
    """Glance's own file rotted: its bytes do not have the hash that Glance tells, so no copy is registered."""
    data = os.urandom(MiB)
    image = images.create(data)
    original = cloud.glance.stores["main"] / image
    original.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    mimeo.serve()
    for store in mimeo.stores:
        mimeo.wait_reason(image, store, {"source-mismatch"})
    always(lambda: not images.mimeo_locations(image), 3, "no location of bad bytes")
    for store in mimeo.stores:
        eventually(lambda s=store: not mimeo.objects(s, image), 20, f"no bad copy is left on {store}")
