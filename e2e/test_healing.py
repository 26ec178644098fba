"""Bits rot, servers go away: what is bad is found, withdrawn and made anew, and what does not answer is read last."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from cloud.base import always, eventually
from mimeo import NO_SCAN
from places import Directory
from test_all_stores import MiB, PATIENT, assert_copies, copies, name_in, only, wait_all_registered

SCRUB = {"period": "10s"}  # no less is taken
PASS = 60  # s: in which a busy machine, too, has read all copies again


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


# What becomes of a copy. `at` is another place in each, so that it shows whose bytes Glance serves.
DAMAGE = {
    "flipped": flipped,
    "truncated": lambda data, at: data[:at],
    "replaced": lambda data, at: os.urandom(len(data)),
    "deleted": lambda data, at: None,
}
# Every kind of store whose copies Mimeo writes itself.
KINDS = ("http", "file", "rbd", "s3", "swift", "sftp", "rsync")
LARGE = "truncated"  # so large that it is in segments at Swift


class Rotten:
    """An image with bad copies among its good ones, as somebody sees it who reads it from Glance again and again."""

    def __init__(self, images, image: str, data: bytes):
        self.images, self.image, self.data = images, image, data
        self.before = self.shown()
        self.bad: dict[str, bytes | None] = {}  # store → what its copy has become
        self.between = 0  # downloads that began when a bad copy was withdrawn and no good one was back

    def shown(self) -> dict[str, str]:
        """Store → the object that Glance reads there, in the order in which it tries them."""
        return {store: name_in(url, self.image) for store, url in self.images.mimeo_locations(self.image).items()}

    def is_bad(self, shown: dict[str, str], store: str) -> bool:
        return shown.get(store) == self.before[store]

    def read(self) -> dict[str, str]:
        """One download. That it has the bytes of a bad copy is excused only where this was not withdrawn before the
        download began. Gives what was shown then."""
        shown = self.shown()
        got = served(self.images, self.image)
        excuses = [store for store in self.bad if self.is_bad(shown, store)]
        if got != self.data and not any((self.bad[store] or b"").startswith(got) for store in excuses):
            whose = [store for store, data in self.bad.items() if data == got]
            # No AssertionError: a wait would take that for "not yet".
            pytest.fail(f"{self.image}: {len(got)} bytes that are wrong, those of {whose}; not withdrawn: {excuses}")
        self.between += not self.bad.keys() <= shown.keys()
        return shown

    def is_withdrawn(self) -> bool:
        shown = self.read()
        return not any(self.is_bad(shown, store) for store in self.bad)

    def is_healed(self) -> bool:
        return self.is_withdrawn() and self.shown().keys() == self.before.keys()


def served(images, image: str) -> bytes:
    """What Glance gives of an image, as far as it gives anything."""
    got = bytearray()
    try:
        with images.raw("GET", f"/images/{image}/file", stream=True) as answer:
            for piece in answer.iter_content(MiB) if answer.status_code == 200 else ():
                got += piece
    except requests.RequestException:
        pass  # it broke off
    return bytes(got)


def wait_healed(*rotten: Rotten) -> None:
    """Reads the images from Glance all the while."""
    pause = 0.02
    eventually(lambda: all([each.is_withdrawn() for each in rotten]), PASS, "all bad copies are withdrawn", pause)
    eventually(lambda: all([each.is_healed() for each in rotten]), 60, "good copies are in their places", pause)
    for each in rotten:
        assert each.between, f"{each.image}: nobody read it between a withdrawal and a return"


def test_bits_that_rot_on_every_kind_of_store(cloud, storage, mimeo, places, images):
    """Whatever becomes of copies behind Mimeo's back, one pass of the scrub finds all of them; they are withdrawn, made
    anew and registered, and what is left of the bad ones is removed. Glance's own copy is gone, and the one that stays
    good is its last to read: it serves bad bytes at first, and none of a copy that was withdrawn."""
    web = cloud.nginx[1]
    mimeo.stores = {**only(places, *KINDS), "good": Directory({"type": "http", "url": web.url}, web.objects)}
    mimeo.stores["swift"].section["segment_size"] = "16MiB"
    # What was given up is removed after the timeout.
    mimeo.serve(store_defaults={**PATIENT, "timeout": "10s"}, scrub=SCRUB, **NO_SCAN)
    web.stop()  # so that it is registered last
    # The prober asks for a copy of the first image at each store, and would find what is deleted before the scrub does.
    ids = sorted(str(uuid.uuid4()) for _ in DAMAGE)
    made = {damage: os.urandom((17 if damage == LARGE else 1) * MiB) for damage in DAMAGE}
    for image, data in zip(ids, made.values(), strict=True):
        images.create(data, id=image)
    for image in ids:
        mimeo.wait_registered(image, stores=list(KINDS))
    web.start()
    for image in ids:
        wait_all_registered(mimeo, image)
        cloud.glance.take_away(image)
    mimeo.stop()
    rotten = {damage: Rotten(images, image, data) for image, (damage, data) in zip(ids, made.items(), strict=True)}
    for damage, each in rotten.items():
        *order, last = each.before
        assert (set(order), last) == (set(KINDS), "good")
        # What Glance reads first is cut the least: no other copy explains the bytes that it serves then.
        for n, store in enumerate(reversed(order), 1):
            each.bad[store] = DAMAGE[damage](each.data, len(each.data) * n // len(each.before))

    def spoil(store: str) -> None:
        for each in rotten.values():
            mimeo.stores[store].spoil(each.before[store], each.bad[store])

    with ThreadPoolExecutor() as pool:
        list(pool.map(spoil, KINDS))
    for damage, each in rotten.items():
        is_right = served(images, each.image) == each.data
        assert is_right == (damage == "deleted"), f"{damage}: Glance serves what it is given"
    mimeo.start()
    wait_healed(*rotten.values())
    for each in rotten.values():
        wait_all_registered(mimeo, each.image)
        after = copies(mimeo, each.image)
        assert {store for store in after if after[store] != each.before[store]} == set(KINDS), after
        assert after == each.shown()
        assert len(images.show(each.image)["locations"]) == len(after) + 1, "each once, and Glance's own"
        assert_copies(mimeo, each.image, each.data)
    bad = tuple(each.before[store] for each in rotten.values() for store in KINDS)

    def swept() -> bool:
        left = {store: [name for name in mimeo.stores[store].left() if name.startswith(bad)] for store in KINDS}
        assert not any(left.values()), left
        return True

    eventually(swept, 60, "what is left of the bad ones is removed, with Swift's segments")
    for each in rotten.values():
        assert each.is_healed()


def test_a_scrub_finds_it_while_mimeo_serves(mimeo, images):
    """Within one pass, without anybody asking; and all the while Glance has a location that is right."""
    # Slow, so that there is time to read between the withdrawal and the return.
    mimeo.serve(scrub=SCRUB, store_defaults={"bandwidth": "2MiB/s"}, **NO_SCAN)
    # The prober goes on asking for what it saw first, and finds it.
    mimeo.wait_registered(images.create(b"asked for"))
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    rotten = Rotten(images, image, data)
    rotten.bad = {"http1": flipped(data, MiB // 2), "http3": None}
    [flip], [gone] = mimeo.objects("http1", image), mimeo.objects("http3", image)
    flip.write_bytes(rotten.bad["http1"])
    gone.unlink()
    wait_healed(rotten)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert rotten.shown()["http2"] == rotten.before["http2"]


def test_verify_finds_it_at_once(mimeo, images):
    """No scrub is due for weeks. It ends well when the good copy is in its place."""
    mimeo.serve(**NO_SCAN)
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    [flip] = mimeo.objects("http1", image)
    flip.write_bytes(flipped(data, MiB // 2))
    code, _, err = mimeo.run("verify", image, "--wait", "--timeout", "60s")
    assert code == 0, err
    assert flip.name not in copies(mimeo, image).values()
    assert images.download(image) == data
    mimeo.assert_complete(image, data)


def test_the_last_location_stays_though_its_copy_is_bad(cloud, mimeo, images):
    """An image that nobody has any more but for one copy, which rots: the location stays, since
    Glance would have none, and what is wrong is said."""
    mimeo.use(cloud.nginx[0])
    mimeo.serve(**NO_SCAN)
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    [own] = [n for n, it in enumerate(images.show(image)["locations"]) if "mimeo_store" not in it["metadata"]]
    images.patch(image, {"op": "remove", "path": f"/locations/{own}"})
    [only_copy] = mimeo.objects("http1", image)
    only_copy.write_bytes(flipped(data, MiB // 2))
    assert mimeo.run("verify", image)[0] == 0

    def is_told() -> bool:
        reason = mimeo.api(f"/v1/images/{image}").json()["reason"]
        assert reason and reason["code"] == "last-location", reason
        assert "upload the image anew" in reason["message"]
        return True

    eventually(is_told, 60, "it is said that the only copy is bad")
    shown = {"http1": only_copy.name}
    always(lambda: Rotten(images, image, data).before == shown and only_copy.exists(), 12, "what there is of it stays")


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
