"""Other writers change the same images while Mimeo registers. Glance writes a whole image back as it was loaded, so
each side can undo the other without a word; in the end Mimeo's locations are there, and what its own PATCH undid is
put back or reported."""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests

from cloud.base import eventually

MiB = 1 << 20
GLANCE = "python-requests"


class Storm:
    """Threads that send foreign changes to images until told to end. Refusals are part of it."""

    def __init__(self, images, ids: list[str], foreign_urls: dict[str, str], dice):
        self.images, self.ids, self.foreign = images, ids, foreign_urls
        self.seed = dice.random()
        self.ended = threading.Event()
        self.answers: dict[int, int] = {}
        self.threads = [threading.Thread(target=self._blow, args=(n,), daemon=True) for n in range(4)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(60)

    def _blow(self, number: int) -> None:
        dice = random.Random(f"{self.seed}-{number}")
        while not self.ended.is_set():
            image = dice.choice(self.ids)
            for answer in dice.choice(self.changes)(self, image, dice):
                self.answers[answer.status_code] = self.answers.get(answer.status_code, 0) + 1

    def _add(self, image: str, key: str, value) -> list[requests.Response]:
        return [self.images.patch_raw(image, [{"op": "add", "path": f"/{key}", "value": value}])]

    changes = [
        lambda self, image, dice: self._add(image, "name", f"renamed-{dice.random()}"),
        lambda self, image, dice: self._add(image, f"key{dice.randrange(5)}", str(dice.random())),
        lambda self, image, dice: self._add(image, "visibility", dice.choice(["public", "private", "community"])),
        lambda self, image, dice: self._add(image, "protected", dice.choice([True, False])),
        lambda self, image, dice: [
            self.images.raw("POST", f"/images/{image}/actions/deactivate"),
            self.images.raw("POST", f"/images/{image}/actions/reactivate"),
        ],
        lambda self, image, dice: self._add(
            image, "locations/-", {"url": self.foreign[image], "metadata": {"whose": "theirs"}}
        ),
    ]


def test_storm_of_foreign_changes(cloud, mimeo, images, dice):
    """Renames, properties, visibility, protection, deactivation and foreign locations on eight images while they
    are replicated: when it is over, every image has all of Mimeo's locations, each once."""
    data = {n: os.urandom(MiB) for n in range(8)}
    made = {n: images.create(data[n]) for n in data}
    foreign = {}
    for n, image in made.items():
        name = f"theirs-{image}"
        requests.put(cloud.apache.url + name, data=data[n], timeout=30).raise_for_status()
        foreign[image] = cloud.apache.url + name
    with Storm(images, list(made.values()), foreign, dice) as storm:
        mimeo.serve()
        time.sleep(12)  # the length of the storm, not a wait for something
    print("answers to the storm:", storm.answers)
    for image in made.values():
        if images.show(image)["status"] == "deactivated":
            images.reactivate(image)
    again = dict.fromkeys(made.values(), 0)

    def is_settled(image: str) -> bool:
        """Registered and active. In doubt Mimeo deactivates what was deactivated while it registered, and says so: whoever
        had reactivated it does so again, and then it stays."""
        status, report = images.show(image)["status"], mimeo.status(image)
        told = [line for line in mimeo.log_lines() if image in line and "put back" in line and "deactivated" in line]
        if status == "deactivated" and told:
            again[image] += 1
            images.reactivate(image)
        assert (status, report["state"]) == ("active", "registered"), (status, told, report)
        return True

    for n, image in made.items():
        eventually(lambda image=image: is_settled(image), 120, f"{image} is registered and active")
        mimeo.wait_registered(image)
        mimeo.assert_complete(image, data[n])
    assert max(again.values()) <= 2, f"Mimeo deactivated again and again: {again}"


def test_a_registration_that_glance_lost_is_made_good(cloud, mimeo, images, faulty):
    """A foreign location add is slow inside Glance; Mimeo's PATCH succeeds meanwhile, and then the foreign one
    writes back the image without Mimeo's locations. All got 200. Mimeo sees it and registers again."""
    theirs = faulty()
    data = os.urandom(MiB)
    image = images.create(data)
    (theirs.objects / "theirs").write_bytes(data)
    theirs.fault("HEAD", "hold", agent=GLANCE)
    with ThreadPoolExecutor() as pool:
        foreign = pool.submit(images.add_location, image, theirs.url + "theirs", whose="theirs")
        eventually(lambda: theirs.requests("HEAD"), 30, "Glance has loaded the image and asks the foreign URL")
        mimeo.serve()
        eventually(lambda: len(images.mimeo_locations(image)) == 3, 60, "Mimeo's locations are registered")
        theirs.release()
        foreign.result()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert theirs.url + "theirs" in [loc["url"] for loc in images.show(image)["locations"]]


def test_a_removed_location_is_asserted_again(mimeo, images):
    """Somebody removes Mimeo's locations one after the other: each comes back, without a new copy being made."""
    mimeo.serve()
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    for _ in range(3):
        locations = images.show(image)["locations"]
        index = max(n for n, location in enumerate(locations) if "mimeo_store" in location["metadata"])
        images.patch(image, {"op": "remove", "path": f"/locations/{index}"})
        eventually(lambda: len(images.mimeo_locations(image)) == 3, 60, "the location is back")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_what_our_patch_undid_is_put_back_or_reported(cloud, mimeo, images, faulty):
    """Glance asks Mimeo's third URL slowly, so Mimeo's PATCH is long inside Glance. Meanwhile the image becomes
    private, protected, deactivated, and gets another name, a property and a tag: Mimeo's PATCH undoes it all.
    Visibility, protection and status are put back; the name, the property and the tag are reported."""
    slow = faulty()
    slow.fault("HEAD", "hold", agent=GLANCE)
    mimeo.use(*cloud.nginx[:2], slow)
    data = os.urandom(MiB)
    image = images.create(data, name="before", visibility="public")
    mimeo.serve()
    eventually(lambda: slow.requests("HEAD", image, GLANCE), 60, "Mimeo's PATCH is inside Glance")
    images.set(image, visibility="private")
    images.set(image, protected=True, name="after", their_key="their value")
    images.call("PUT", f"/images/{image}/tags/their-tag")
    images.deactivate(image)
    slow.release()

    def put_back_and_reported():
        # Together: Glance saves an image in several steps, and one moment in the midst of its saving our locations
        # shows both them and what is about to be undone.
        lines = [line for line in mimeo.log_lines() if image in line and "undone" in line]
        shown = images.show(image)
        for key in ("name", "their_key", "their-tag"):
            assert any(key in line for line in lines), f"{key} is not reported: {lines}"
        assert len(images.mimeo_locations(image)) == 3, shown["locations"]
        assert (shown["visibility"], shown["protected"], shown["status"]) == ("private", True, "deactivated"), shown
        return True

    eventually(put_back_and_reported, 60, "what must not be undone is put back, and the rest is told")


def test_what_glance_undoes_after_mimeo_gave_up_waiting_is_put_back(cloud, mimeo, images, faulty):
    """Glance waits for Mimeo's third URL longer than Mimeo waits for Glance. Meanwhile the image becomes private. Mimeo has
    looked at it again, and found it so, when the URL answers and Glance finishes the first PATCH with what it had loaded."""
    slow = faulty()
    slow.fault("HEAD", "hold", agent=GLANCE)
    mimeo.use(*cloud.nginx[:2], slow)
    image = images.create(os.urandom(MiB), visibility="public")
    mimeo.serve()
    eventually(lambda: slow.requests("HEAD", image, GLANCE), 60, "Mimeo's PATCH is inside Glance")
    images.set(image, visibility="private")
    mimeo.wait_reason(image, "http3", {"image-service-unreachable"})
    mimeo.wait_registered(image)  # the first request alone is held back
    assert images.show(image)["visibility"] == "private"
    slow.release()

    def put_back():
        shown = images.show(image)
        assert len(images.mimeo_locations(image)) == 3, shown["locations"]
        assert shown["visibility"] == "private", shown
        assert any(image in line and "undone" in line for line in mimeo.log_lines()), "not told"
        return True

    eventually(put_back, 90, "it is private again")


def test_a_slow_store_keeps_the_window_short(cloud, mimeo, images, faulty):
    """A URL that answers slowly to everybody is not in the PATCH: changes made by others meanwhile stand."""
    slow = faulty()
    slow.fault("HEAD", "delay", 6)
    mimeo.use(*cloud.nginx[:2], slow)
    mimeo.serve()
    image = images.create(os.urandom(MiB), visibility="public")
    mimeo.wait_registered(image, stores=["http1", "http2"])
    images.set(image, visibility="private", name="after")
    mimeo.wait_reason(image, "http3", {"location-unreachable", "store-stalled", "store-unreachable"})
    assert not slow.requests("HEAD", agent=GLANCE), "Glance was made to wait for the slow store"
    shown = images.show(image)
    assert (shown["visibility"], shown["name"]) == ("private", "after")
