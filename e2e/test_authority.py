"""What Mimeo must not believe: a location's URL or metadata, an event, and the absence of images."""

import json
import os
import sqlite3
import uuid

import requests

from cloud.base import always, eventually

MiB = 1 << 20


def registered(mimeo, images, count: int = 1, size: int = MiB, **properties) -> dict[str, bytes]:
    made = {}
    for _ in range(count):
        data = os.urandom(size)
        made[images.create(data, **properties)] = data
    for image in made:
        mimeo.wait_registered(image)
    return made


def test_a_tenant_cannot_have_anothers_bits_deleted(mimeo, images):
    """A tenant registers another image's URLs on images of theirs, with Mimeo's own metadata, and deletes them: the
    other image keeps every copy."""
    mimeo.serve()
    (image, data), = registered(mimeo, images, visibility="public").items()
    victims = images.mimeo_locations(image)
    alice = images.as_user("alice")
    with_data = alice.create(b"something of her own")
    without_data = alice.record()  # becomes active by the location alone
    for store, url in victims.items():
        alice.add_location(with_data, url, mimeo_store=store)
        alice.add_location(without_data, url, mimeo_store=store)
    eventually(lambda: mimeo.status(with_data)["replicas"], 30, "Mimeo has looked at her image")
    for mine in (with_data, without_data):
        alice.delete(mine)
    for store in mimeo.stores:
        eventually(lambda s=store: not mimeo.objects(s, with_data), 60, f"her own copy on {store} is removed")
        eventually(lambda s=store: not mimeo.objects(s, without_data), 60, f"and that of the other on {store}")
    always(lambda: all(mimeo.objects(s, image) for s in mimeo.stores), 5, "the victim's copies stay")
    mimeo.assert_complete(image, data)


def test_a_foreign_object_is_never_adopted(cloud, mimeo, images):
    """An object that somebody put at a store under a name that looks like Mimeo's, and a location for it: the image
    gets copies of Mimeo's own making."""
    data = os.urandom(MiB)
    image = images.create(data)
    planted = {}
    for n, server in enumerate(cloud.nginx, 1):
        planted[server] = f"{image}.{'f' * 16}"
        requests.put(server.url + planted[server], data=b"planted", timeout=30).raise_for_status()
        images.add_location(image, server.url + planted[server], mimeo_store=f"http{n}")
    mimeo.serve()

    def own_copies():
        urls = [location["url"] for location in images.show(image)["locations"]]
        for server, name in planted.items():
            own = [url for url in urls if url.startswith(server.url + image) and not url.endswith(name)]
            assert len(own) == 1, urls
            assert requests.get(own[0], timeout=30).content == data
        return True

    eventually(own_copies, 60, "copies of Mimeo's own are registered")


def test_a_forged_delete_event(cloud, mimeo, images):
    """Anybody on the broker can say that an image was deleted; its record says otherwise."""
    mimeo.serve()
    (image, data), = registered(mimeo, images).items()
    payload = {"id": image, "status": "deleted", "deleted": True, "deleted_at": "2026-01-01T00:00:00Z"}
    message = {"event_type": "image.delete", "payload": payload, "message_id": str(uuid.uuid4()), "priority": "INFO"}
    for _ in range(3):
        cloud.rabbitmq.publish(json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}))
    always(lambda: all(mimeo.objects(s, image) for s in mimeo.stores), 6, "no copy is removed")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_a_lost_role_is_no_deletion(cloud, mimeo, images):
    """Mimeo's user is no admin any more: lists are empty, every image answers 404. Not one copy goes, the status
    says why, and when the role is back the work goes on."""
    mimeo.serve()
    made = registered(mimeo, images, count=3, size=1000)
    image = next(iter(made))
    cloud.keystone.demote("mimeo")
    images.set(image, touched="yes")  # an event, so that it is looked at

    def said():
        overview = mimeo.overview()
        assert overview["trouble"], overview
        assert overview["trouble"]["code"] in ("image-not-visible", "not-allowed"), overview
        return True

    eventually(said, 30, "the status says that Mimeo cannot see")
    # Three times the grace period and several scans.
    always(lambda: all(mimeo.objects(s, i) for s in mimeo.stores for i in made), 8, "no copy is removed")
    cloud.keystone.reset_roles()
    later = registered(mimeo, images, size=1000)
    for image, data in {**made, **later}.items():
        mimeo.wait_registered(image)
        mimeo.assert_complete(image, data)


def test_a_lost_role_is_noticed_when_no_image_is_known_any_more(cloud, mimeo, images):
    """The last image is deleted, so nothing that Mimeo knows of is missing from the lists when its user sees none; its
    roles tell. An image of which Mimeo never heard names one of the copies, and keeps its bits."""
    mimeo.serve(gc={"grace": "8s"})
    (image, data), = registered(mimeo, images, size=1000).items()
    named = images.mimeo_locations(image)["http1"]

    def is_noted():
        with sqlite3.connect(mimeo.ledger) as database:
            return database.execute("SELECT 1 FROM bookmarks WHERE value LIKE '%admin%'").fetchone()

    eventually(is_noted, 30, "with which roles all is seen")
    images.delete(image)
    eventually(lambda: mimeo.status(image)["state"] == "retiring", 30, "the image's end is concluded")
    mimeo.stop()
    other = images.record()
    images.add_location(other, named)
    cloud.keystone.demote("mimeo")
    mimeo.serve(gc={"grace": "8s"}, events=None)
    eventually(lambda: any("has lost a role" in line for line in mimeo.log_lines()), 60, "why nothing is removed")
    always(lambda: all(mimeo.objects(store, image) for store in mimeo.stores), 5, "no copy is removed")
    cloud.keystone.reset_roles()
    for store in ("http2", "http3"):
        eventually(lambda s=store: not mimeo.objects(s, image), 60, f"what nobody names goes from {store}")
    assert mimeo.objects("http1", image)
    assert images.download(other) == data


def test_a_mass_delete_waits_for_an_operator(mimeo, images):
    """More images vanish at once than the guard lets through: their copies stay until `mimeo gc --confirm`."""
    mimeo.serve(gc={"max_images": 3})
    made = registered(mimeo, images, count=8, size=100)
    doomed = list(made)[:6]
    for image in doomed:
        images.delete(image)
    eventually(lambda: mimeo.overview()["held_deletes"] >= 1, 30, "the deletions are held")
    always(lambda: all(mimeo.objects(s, i) for s in mimeo.stores for i in doomed), 6, "held copies stay")
    assert set(doomed) <= {row["Image"] for row in mimeo.ask("gc")}
    list_of_none = {"seen": "2000-01-01T00:00:00Z"}
    assert mimeo.api("/v1/gc/confirm", method="POST", params=list_of_none).status_code == 204
    always(lambda: mimeo.overview()["held_deletes"] > 0, 3, "those were on no list")
    code, _, err = mimeo.run("gc", "--confirm")
    assert code == 0 and "of 6 images go, each when it is due" in err, err
    for store in mimeo.stores:
        eventually(
            lambda s=store: not any(mimeo.objects(s, i) for i in doomed), 60, f"{store} is cleared after the consent"
        )
    for image in list(made)[6:]:
        mimeo.assert_complete(image, made[image])
