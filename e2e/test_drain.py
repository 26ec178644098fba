"""Copies that leave a store: because of a rule, because the store is drained, renamed or moved."""

import os
import shutil
import threading
import time

from cloud.base import always, eventually

MiB = 1 << 20


def any_two(*stores: str) -> list[dict]:
    return [{"name": "any two", "stores": list(stores), "copies": 2}]


def only(*stores: str) -> list[dict]:
    return [{"name": "only there", "stores": list(stores)}]


def wait_held(mimeo, image: str, *stores: str) -> None:
    """Until exactly these stores have an object of the image, and its locations lead to them and to no other of Mimeo's."""

    def check():
        held = {store for store in mimeo.stores if mimeo.objects(store, image)}
        assert held == set(stores), held
        assert set(mimeo.cloud.images.mimeo_locations(image)) == set(stores), mimeo.cloud.images.show(image)
        return True

    eventually(check, 90, f"{image} is at {stores} and nowhere else", pause=0.2)


def state(mimeo, store: str) -> str:
    return next(row["State"] for row in mimeo.ask("stores") if row["Name"] == store)


def test_a_rule_change_moves_copies(mimeo, images):
    """The new copy is registered before the old one goes; Glance serves the image at every moment."""
    mimeo.serve(rules=only("http1"))
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image, stores=["http1"])
    mimeo.stop()
    mimeo.serve(rules=only("http2", "http3"), gc={"grace": "4s"})
    mimeo.wait_registered(image, stores=["http2", "http3"])
    eventually(lambda: mimeo.replica(image, "http1")["state"] == "retiring", 10, "the old copy is to go")
    assert mimeo.reason(image, "http1") == "not-wanted"
    wait_held(mimeo, image, "http2", "http3")
    assert images.download(image) == data
    eventually(lambda: {r["store"] for r in mimeo.status(image)["replicas"]} == {"http2", "http3"}, 20, "its row is gone")


def test_a_mistyped_rule_removes_no_mass_of_copies(mimeo, images):
    """Neither by itself nor after a restart; an operator's word lets them go."""
    mimeo.serve(gc={"max_images": 2})
    made = [images.create(f"image {n}".encode()) for n in range(4)]
    for image in made:
        mimeo.wait_registered(image)
    mimeo.stop()
    mimeo.serve(rules=only("http1"), gc={"max_images": 2})
    eventually(lambda: len(mimeo.ask("gc")) == 8, 30, "two copies of each wait")
    always(lambda: all(mimeo.objects(s, i) for s in mimeo.stores for i in made), 5, "nothing goes")
    mimeo.restart()
    eventually(lambda: mimeo.overview()["held_deletes"] == 4, 30, "the guard holds them")
    always(lambda: all(mimeo.objects(s, i) for s in mimeo.stores for i in made), 3, "nothing goes")
    code, _, err = mimeo.run("gc", "--confirm")
    assert code == 0, err
    for image in made:
        wait_held(mimeo, image, "http1")


def test_a_drain_while_an_image_is_uploaded(mimeo, images):
    """The store becomes empty and says so, also after a restart; what comes meanwhile goes elsewhere."""
    mimeo.serve(rules=any_two("http1", "http2", "http3"))
    made = [images.create(os.urandom(MiB)) for _ in range(3)]
    for image in made:
        mimeo.wait_registered(image, stores=["http1", "http2"])
    late, pieces = images.record(), 20
    data = os.urandom(pieces * MiB // 4)

    def slowly():
        for at in range(pieces):
            time.sleep(0.1)
            yield data[at * MiB // 4:(at + 1) * MiB // 4]

    upload = threading.Thread(target=images.upload, args=(late, slowly()), daemon=True)
    upload.start()
    code, _, err = mimeo.run("drain", "http1", "--wait", "--timeout", "90s")
    assert code == 0 and "may be switched off" in err, err
    upload.join(60)
    for image in [*made, late]:
        wait_held(mimeo, image, "http2", "http3")
    assert images.download(late) == data
    mimeo.restart()
    mimeo.wait_listening()
    assert state(mimeo, "http1") == "drained, empty"
    after = images.create(b"after the restart")
    mimeo.wait_registered(after, stores=["http2", "http3"])
    assert not mimeo.objects("http1")
    assert mimeo.run("drain", "http1", "--cancel")[0] == 0
    assert "drain" not in state(mimeo, "http1")
    always(lambda: not mimeo.objects("http1"), 3, "copies do not wander back")


def test_a_drain_that_cannot_end(cloud, mimeo, images, faulty):
    """3 while another store is down; 1 for an image that has no other place; 2 for a store that is none."""
    broken = faulty()
    broken.down()
    mimeo.use(*cloud.nginx[:2], broken)
    mimeo.serve(rules=[
        {"name": "two", "when": "image.visibility == 'public'", "stores": ["http1", "http2", "http3"], "copies": 2},
        {"name": "one", "when": "image.visibility == 'private'", "stores": ["http2"]},
    ])
    public, private = images.create(b"public", visibility="public"), images.create(b"private", visibility="private")
    mimeo.wait_registered(public, stores=["http1", "http2"])
    mimeo.wait_registered(private, stores=["http2"])
    code, _, err = mimeo.run("drain", "http1", "--wait", "--timeout", "4s")
    assert code == 3, err
    left = mimeo.ask("drain", "http1")
    assert [row["Image"] for row in left] == [public] and "http3" in left[0]["Reason"], left
    assert set(images.mimeo_locations(public)) == {"http1", "http2"}
    broken.heal()
    code, _, err = mimeo.run("drain", "http1", "--wait", "--timeout", "90s")
    assert code == 0, err
    wait_held(mimeo, public, "http2", "http3")
    code, _, err = mimeo.run("drain", "http2", "--wait", "--timeout", "90s")
    assert code == 1 and "no-other-place" in err and private in err, err
    assert mimeo.objects("http2", private) and images.download(private) == b"private"
    code, _, err = mimeo.run("drain", "nowhere")
    assert code == 2 and "nowhere" in err, err


def test_a_renamed_store(cloud, mimeo, images):
    """Recognised and told with the command; nothing is copied anew or removed because of it."""
    mimeo.serve()
    image = images.create(b"renamed")
    mimeo.wait_registered(image)
    puts = sum(len(server.requests("PUT", image)) for server in cloud.nginx)
    mimeo.stop()
    mimeo.stores["fast"] = mimeo.stores.pop("http3")
    mimeo.serve()
    rows = {row["Name"]: row for row in mimeo.ask("stores")}
    assert rows["http3"]["State"] == "not enabled" and "`mimeo stores rename http3 fast`" in rows["http3"]["Reason"], rows
    assert any("mimeo stores rename http3 fast" in line for line in mimeo.log_lines())
    shown = lambda: {r["store"]: (r["reason"] or {}).get("code") for r in mimeo.status(image)["replicas"]}
    eventually(lambda: shown().get("fast") == "store-renamed", 20, "the image's status tells it too")
    # 3: an image is at work at that moment, and the command is to be given again.
    eventually(lambda: mimeo.run("stores", "rename", "http3", "fast")[0] == 0, 20, "the store is renamed")
    eventually(lambda: mimeo.status(image)["state"] == "registered", 30, "the copy is the new store's")
    assert {r["store"] for r in mimeo.status(image)["replicas"]} == {"http1", "http2", "fast"}
    assert puts == sum(len(server.requests("PUT", image)) for server in cloud.nginx)
    assert all(len(mimeo.objects(store, image)) == 1 for store in mimeo.stores)
    images.delete(image)
    eventually(lambda: not any(mimeo.objects(s, image) for s in mimeo.stores), 60, "its copies go with the image")


def test_a_moved_store(cloud, mimeo, images):
    """Its copies stay as they are until the word; then they are proven at the new place, registered there, and the old
    locations go. What was not brought along stays."""
    old, new = cloud.nginx[1], cloud.nginx[2]
    mimeo.use(cloud.nginx[0], old)
    mimeo.serve()
    brought, forgotten = images.create(b"brought"), images.create(b"forgotten")
    for image in (brought, forgotten):
        mimeo.wait_registered(image)
    mimeo.stop()
    mimeo.use(cloud.nginx[0], new)
    mimeo.serve()
    for file in old.objects.glob(f"{brought}*"):
        shutil.copy(file, new.objects)
    told = next(row for row in mimeo.ask("stores") if row["Name"] == "http2")
    assert "`mimeo stores move http2`" in told["Reason"], told
    assert "mimeo stores move http2" in mimeo.run("check")[1]
    always(lambda: images.mimeo_locations(brought)["http2"].startswith(old.url), 3, "nothing is done without the word")
    code, _, err = mimeo.run("stores", "move", "http2")
    assert code == 0 and "2 copies" in err, err
    eventually(lambda: images.mimeo_locations(brought)["http2"].startswith(new.url), 30, "it is registered there")
    eventually(lambda: mimeo.reason(forgotten, "http2") == "store-moved", 30, "what is missing is told")
    assert images.mimeo_locations(forgotten)["http2"].startswith(old.url)
    assert not new.requests("PUT", brought) and not new.requests("PUT", forgotten)
    assert images.download(brought) == b"brought"
