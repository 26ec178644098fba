"""Every kind of store at work behind a real Glance: read by Glance, compared by each server's own client, broken off
and gone on with, refused; and nothing of it left anywhere when the image is deleted."""

import hashlib
import html
import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlencode

import pytest
import requests

from cloud.base import eventually
from cloud.ceph import SECOND_POOL, new_key
from cloud.conf import write_ini
from cloud.storage import Storage
from mimeo import NO_SCAN, ROOT
from places import ODDER, S3, Directory, Place, Rbd, Swift

MiB = 1 << 20
PATIENT = {"type": "http", "timeout": "30s"}  # many servers share this machine
SLOW = "20MiB/s"


def only(places: dict[str, Place], *names: str) -> dict[str, Place]:
    return {name: places[name] for name in names}


def name_in(location: str, image: str) -> str:
    """The object that a location names."""
    return next(part for part in location.split("/") if part.startswith(image))


def copies(mimeo, image: str) -> dict[str, str]:
    """Store → the name of its copy, as `mimeo status` tells."""
    return {replica["store"]: name_in(replica["location"], image) for replica in mimeo.status(image)["replicas"]}


def wait_all_registered(mimeo, image: str, timeout: float = 120) -> None:
    def check():
        report = mimeo.status(image)
        assert report["state"] == "registered", report
        return {replica["state"] for replica in report["replicas"]} == {"registered"}

    eventually(check, timeout, f"{image} is registered everywhere", pause=0.2)


def assert_copies(mimeo, image: str, data: bytes) -> None:
    """Exactly one object per store, with the image's bytes."""
    for store, name in copies(mimeo, image).items():
        assert mimeo.stores[store].read(name) == data, f"{store} has other bytes"


def left(places: dict[str, Place], image: str) -> dict[str, list[str]]:
    """What of an image is somewhere."""
    found = {name: [each for each in place.left() if image in each] for name, place in places.items()}
    return {name: names for name, names in found.items() if names}


def wait_nothing_left(mimeo, image: str, timeout: float = 60) -> None:
    """Not at a store, and not in Mimeo's own books."""
    def gone():
        assert left(mimeo.stores, image) == {}
        return True

    eventually(gone, timeout, f"nothing of {image} is left")

    def forgotten():
        code, out, _ = mimeo.run("status", image)
        assert code == 1, out
        return mimeo.ask("gc") == []

    eventually(forgotten, timeout, "Mimeo knows nothing of it any more")


# -- Glance reads what Mimeo wrote -------------------------------------------------------------------------------------


@dataclass
class Backend:
    """A store of Mimeo's that is one of Glance's own too."""

    kind: type[Place]
    name: str  # Glance's
    options: dict = field(default_factory=dict)


BACKENDS = {
    "rbd": Backend(Rbd, "rbd1"),
    "s3": Backend(S3, "s3_1"),
    # Its driver cuts credentials off, and then the URL does not begin as the store's own do.
    "s3-credentials": Backend(S3, "s3_1", {"location_credentials": True, "backend": "s3_1"}),
    "swift": Backend(Swift, "swift2"),
    "swift-other-user": Backend(Swift, "swift1", {"user": "mimeo", "backend": "swift1"}),
}


@pytest.mark.parametrize("case", BACKENDS)
def test_glance_reads_the_copy(cloud, storage, mimeo, images, case):
    """Its own file is lost, and it serves the same bytes from the store. With the image, all of it goes."""
    backend, data = BACKENDS[case], os.urandom(20 * MiB + 7)
    mimeo.stores = {"store": backend.kind(storage, **backend.options)}
    mimeo.serve(store_defaults=PATIENT, **NO_SCAN)
    image = images.create(data)
    wait_all_registered(mimeo, image)
    assert images.glance_stores(image) == {"main", backend.name}
    cloud.glance.take_away(image)
    answer = images.raw("GET", f"/images/{image}/file")
    assert answer.status_code == 200, answer.text
    shown = images.show(image)
    assert answer.content == data and answer.headers["Content-MD5"] == shown["checksum"]
    assert hashlib.sha512(answer.content).hexdigest() == shown["os_hash_value"]
    images.delete(image)
    wait_nothing_left(mimeo, image)


# -- all kinds at once -------------------------------------------------------------------------------------------------


def test_one_reading_for_every_kind(cloud, mimeo, places, images):
    """The image is read once, each server has the bytes, and with the image everything goes. No output has a secret."""
    mimeo.stores = places
    mimeo.serve(store_defaults=PATIENT, **NO_SCAN)
    data = os.urandom(20 * MiB + 7)
    image = images.create(data)
    wait_all_registered(mimeo, image)
    mimeo.assert_read_once(image)
    assert set(copies(mimeo, image)) == set(places)
    assert_copies(mimeo, image, data)
    assert len(images.show(image)["locations"]) == len(places) + 1, "each once, and the one that it was uploaded to"
    assert_no_secret(mimeo, image)
    images.delete(image)
    wait_nothing_left(mimeo, image)
    assert {name: place.left() for name, place in places.items()} == dict.fromkeys(places, [])
    assert_no_secret(mimeo, image)


def test_places_with_odd_names(cloud, storage, mimeo, images, exported):
    """Glance looks at each location before it takes it, and reads the copy there."""
    web, scratch = cloud.nginx[0], mimeo.dir / ODDER
    directories = web.objects / ODDER, scratch / "images"
    for directory in directories:
        directory.mkdir(parents=True)
    shown = f"{exported(mimeo.dir).url}{quote(ODDER)}/images/"
    mimeo.stores = {
        "http": Directory({"type": "http", "url": f"{web.url}{quote(ODDER)}/"}, directories[0]),
        "file": Directory({"type": "file", "path": str(directories[1]), "read_url": shown}, directories[1]),
        "s3": S3(storage, prefix="Site-1_"),
    }
    mimeo.serve(store_defaults=PATIENT, **NO_SCAN)
    data = os.urandom(MiB)
    image = images.create(data)
    wait_all_registered(mimeo, image)
    for store, location in images.mimeo_locations(image).items():
        name = location.rsplit("/", 1)[1]
        assert mimeo.stores[store].read(name) == data, store
    cloud.glance.take_away(image)
    assert images.raw("GET", f"/images/{image}/file").content == data
    images.delete(image)
    wait_nothing_left(mimeo, image)
    directories[0].rmdir()


def test_what_one_store_has_another_takes(cloud, storage, mimeo, places, images):
    """Stores that come later do not have the image read for them: Ceph copies within the cluster, and rsync sends the
    file of a store on this machine, for which its spool would be too small."""
    first, later = only(places, "rbd", "file"), {"fast": Rbd(storage, pool=SECOND_POOL), "rsync": places["rsync"]}
    later["rsync"].section["spool_size"] = "1MiB"
    mimeo.stores = first
    mimeo.serve(store_defaults=PATIENT, **NO_SCAN)
    data = os.urandom(10 * MiB) + bytes(10 * MiB) + b"the end"
    image = images.create(data)
    wait_all_registered(mimeo, image)
    mimeo.stop()
    mimeo.stores = {**first, **later}
    mimeo.configure(store_defaults=PATIENT)
    mimeo.start()
    mimeo.wait_registered(image, stores=list(mimeo.stores))
    said = [line for line in mimeo.log_lines() if "the store copies by itself" in line]
    for taker, giver in ("fast", "rbd"), ("rsync", "file"):
        assert any(f"store={taker}" in line and f"from={giver}" in line for line in said), said
    assert sum(" copying " in line and " stores=" in line for line in mimeo.log_lines()) == 1, "it was read once"
    mimeo.assert_read_once(image)
    assert_copies(mimeo, image, data)
    assert_no_secret(mimeo, image)
    images.delete(image)
    wait_nothing_left(mimeo, image)


def test_every_kind_is_a_source(cloud, mimeo, places, images):
    """A store that a rule names later is given the bits of the copy there is, whatever its kind. Glance is not asked for
    them a second time."""
    kinds, web = [kind for kind in places if kind != "glance"], cloud.nginx[1]
    mimeo.stores = {**only(places, *kinds), "later": Directory({"type": "http", "url": web.url}, web.objects)}

    def rules(*more: str) -> list[dict]:
        return [{"name": kind, "when": f'image.name == "{kind}"', "stores": [kind, *more]} for kind in kinds]

    mimeo.serve(store_defaults=PATIENT, rules=rules(), **NO_SCAN)
    data = {kind: os.urandom(10 * MiB) + bytes(MiB) + kind.encode() for kind in kinds}
    made = {kind: images.create(data[kind], kind) for kind in kinds}
    for kind, image in made.items():
        mimeo.wait_registered(image, stores=[kind])
    mimeo.stop()
    mimeo.configure(store_defaults=PATIENT, rules=rules("later"))
    mimeo.start()
    for kind, image in made.items():
        mimeo.wait_registered(image, stores=[kind, "later"])
        location = images.mimeo_locations(image)["later"]
        assert mimeo.stores["later"].read(location.rsplit("/", 1)[1]) == data[kind], kind
        assert len(cloud.glance.requests("GET", f"/images/{image}/file")) == 1, f"{kind}'s copy is the source"


def test_an_image_that_is_looked_at_while_glance_deletes_it(storage, mimeo, images):
    """Glance removes the bits of one location after the other, and shows the image as active all the time: what Mimeo
    misses then, and begins to copy again, goes too."""
    mimeo.stores = {"rbd": Rbd(storage), "s3": S3(storage), "swift": Swift(storage)}
    # What was given up in mid-copy is removed after this time.
    mimeo.serve(store_defaults={**PATIENT, "timeout": "5s"})
    image = images.create(os.urandom(20 * MiB))
    wait_all_registered(mimeo, image)
    with ThreadPoolExecutor() as pool:
        deleted = pool.submit(images.delete, image)
        while not deleted.done():
            mimeo.api(f"/v1/images/{image}/replicate", method="POST")
        deleted.result()
    wait_nothing_left(mimeo, image)
    assert not any(place.left() for place in mimeo.stores.values())


# -- what is told ------------------------------------------------------------------------------------------------------

API = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
EVENTS = "/v1/events"  # which does not end
DASHBOARD = re.findall(r'\.route\("([^"]+)", get\(', (ROOT / "crates/app/src/ui.rs").read_text())


def outputs(mimeo, image: str) -> dict[str, str]:
    """Everything that Mimeo tells, by where it does: its commands, all of its API and of its dashboard, and its log."""
    of_the_image = [("status", image), ("status", image, "--history"), ("plan", image)]
    commands = [*of_the_image, ("status",), ("stores",), ("rules",), ("gc",)]
    told = {" ".join(command): "".join(mimeo.run(*command, "-f", "json")[1:]) for command in commands}
    return {**told, **answers(mimeo, image), **pages(mimeo, image), "log": mimeo.log.read_text()}


def answers(mimeo, image: str) -> dict[str, str]:
    """The answer to each GET that the API's description has."""
    is_known = mimeo.api(f"/v1/images/{image}").ok
    told = {}
    for path in gets(mimeo, image):
        with mimeo.api(path, stream=True) as answer:
            assert answer.status_code == 200 or (answer.status_code == 404 and not is_known), (path, answer.text)
            told[path] = events(mimeo, answer) if is_stream(answer) else answer.text
    return told


def gets(mimeo, image: str) -> Iterator[str]:
    """The paths to ask for; where a store is named, of each. A route that must be told something else is a KeyError."""
    known = {"id": image, "q": image}
    for path, methods in API.items():
        if "get" not in methods:
            continue
        parameters = methods["get"].get("parameters", [])
        query = {it["name"]: known[it["name"]] for it in parameters if it["in"] == "query" and it.get("required")}
        if path == EVENTS:
            query["after"] = 0
        for store in mimeo.stores if "{name}" in path else [""]:
            yield path.format(**known, name=store) + (f"?{urlencode(query)}" if query else "")


def is_stream(answer: requests.Response) -> bool:
    return answer.headers["Content-Type"] == "text/event-stream"


def events(mimeo, answer: requests.Response) -> str:
    """From the first to the newest that there is now: the stream itself has no end."""
    changes = mimeo.api("/v1/changes").json()["changes"]
    newest = max(change["number"] for change in changes)
    return until(answer, lambda event: int(event.get("id", 0)) >= newest)


def until(answer: requests.Response, is_last) -> str:
    """What a stream tells up to an event. A lone colon is all that comes while there is nothing to tell."""
    told, event = [], {}
    for line in answer.iter_lines(chunk_size=None, decode_unicode=True):
        told.append(line)
        assert told.count(":") < 4, f"nothing comes any more: {told}"
        key, _, value = line.partition(": ")
        if key == "event":
            event = {}
        if value:
            event[key] = value
        elif event and is_last(event):
            return "\n".join(told)
    raise AssertionError(f"the stream ended: {told}")


def pages(mimeo, image: str) -> dict[str, str]:
    """Each page of the dashboard, and the first that keeps it up to date, for somebody who is signed in."""
    base = f"http://127.0.0.1:{mimeo.port}"
    visitor = requests.Session()
    csrf = re.search(r'name="csrf" value="([^"]+)"', visitor.get(f"{base}/sign-in", timeout=30).text)[1]
    token = (mimeo.dir / "mimeo.token").read_text().strip()
    visitor.post(f"{base}/sign-in", data={"csrf": csrf, "token": token}, timeout=30).raise_for_status()
    is_known = mimeo.api(f"/v1/images/{image}").ok

    def read(path: str) -> str:
        options = {"cookies": visitor.cookies, "allow_redirects": False, "stream": True, "timeout": 30}
        with requests.get(base + path, **options) as answer:
            assert answer.status_code == 200 or (answer.status_code == 404 and not is_known), (path, answer.status_code)
            return until(answer, lambda event: event["event"] == "change") if is_stream(answer) else answer.text

    # The style, the script and the icon are the same for everybody.
    paths = [path.format(id=image) for path in DASHBOARD if not path.startswith("/assets/")]
    # What keeps a page up to date takes its seconds to begin.
    with ThreadPoolExecutor(len(paths)) as pool:
        return dict(zip(paths, pool.map(read, paths)))


def assert_no_secret(mimeo, image: str, *more: str) -> None:
    secrets = {place.secret: f"the secret of {store}" for store, place in mimeo.stores.items() if place.secret}
    secrets |= dict.fromkeys(more, "what nobody may see")
    for source, text in outputs(mimeo, image).items():
        # As it stands there, and as it is meant in HTML and in URLs.
        plain = unquote(html.unescape(text))
        for secret, whose in secrets.items():
            assert secret not in text and secret not in plain, f"{source} shows {whose}"
        # The password of Swift, Keystone and all, is a plain word here.
        assert not re.search(r"(?<![\w-])secret(?![\w-])", text), f"{source} shows the password: {text}"


# -- clones ------------------------------------------------------------------------------------------------------------


def test_glance_deletes_no_image_whose_copy_has_a_clone(cloud, storage, mimeo, images):
    """It answers 409 and keeps the image, but has removed locations by then: Mimeo's own come back, and the bits at a
    store that Glance writes itself are gone. Once the clone is gone the image can be deleted."""
    web = cloud.nginx[0]
    mimeo.stores = {"http": Directory({"type": "http", "url": web.url}, web.objects), "rbd": Rbd(storage)}
    mimeo.serve(store_defaults=PATIENT)
    data = os.urandom(MiB)
    image = images.create(data)
    wait_all_registered(mimeo, image)
    name = copies(mimeo, image)["rbd"]
    storage.ceph.rbd("clone", f"images/{name}@snap", "images/disk")
    answer = images.raw("DELETE", f"/images/{image}")
    assert answer.status_code == 409 and "in use" in answer.text, answer.text
    assert images.show(image)["status"] == "active"
    mimeo.wait_registered(image, stores=["http", "rbd"])
    assert copies(mimeo, image)["rbd"] == name
    assert_copies(mimeo, image, data)
    assert images.download(image) == data
    storage.ceph.rbd("rm", "--no-progress", "disk")
    images.delete(image)
    wait_nothing_left(mimeo, image)


@pytest.fixture
def unseen(storage):
    """A pool that Glance does not know: it refuses the locations there, and removes nothing."""
    storage.ceph.add_pool("unseen")
    yield "unseen"
    storage.ceph.remove_pool("unseen")


def test_a_copy_with_a_clone_stays_and_holds_nothing_up(storage, unseen, mimeo, images):
    """`mimeo gc` names the clone; other copies of the same store go meanwhile; after the clone this one goes."""
    ceph = storage.ceph
    mimeo.stores = {"rbd": Rbd(storage, pool=unseen, user="admin")}
    mimeo.serve(store_defaults=PATIENT)
    made = sorted(images.create(os.urandom(MiB)) for _ in range(3))
    for image in made:
        mimeo.wait_reason(image, "rbd", {"location-refused"})
    names = {name.partition(".")[0]: name for name in ceph.images(unseen)}
    assert set(names) == set(made)
    held, *others = made  # the first to be removed
    ceph.rbd("clone", f"{unseen}/{names[held]}@snap", f"{unseen}/disk", client="admin")
    for image in made:
        images.delete(image)
    eventually(lambda: set(ceph.images(unseen)) == {names[held], "disk"}, 60, "the others are removed")

    def told():
        [entry] = mimeo.ask("gc")
        assert (entry["Image"], entry["Store"], entry["Object"]) == (held, "rbd", names[held])
        return "held by 1 clone" in entry["Why"] and f"{unseen}/disk" in entry["Why"]

    eventually(told, 20, "`mimeo gc` says by what it is held")
    assert mimeo.status(held)["state"] == "retiring"
    ceph.rbd("rm", "--no-progress", f"{unseen}/disk", client="admin")
    # What was held is left alone for a quarter of an hour, or until a restart.
    mimeo.restart()
    eventually(lambda: ceph.images(unseen) == [], 60, "it goes after its clone")
    eventually(lambda: mimeo.ask("gc") == [], 20, "Mimeo knows nothing of it any more")


# -- broken off --------------------------------------------------------------------------------------------------------


def test_every_kind_goes_on_with_what_was_kept(mimeo, places, images):
    """Killed in the middle of a large image: at the next start each store is sent only the rest, and no upload, segment
    or partial file is left."""
    stores = only(places, "s3", "swift", "rbd", "sftp", "file")
    stores["swift"].section["segment_size"] = "16MiB"
    mimeo.stores = stores
    mimeo.serve(store_defaults={**PATIENT, "bandwidth": SLOW}, **NO_SCAN)
    data = os.urandom(200 * MiB)
    image = images.create(data)

    def written() -> dict[str, int]:
        return {name: place.written(image) for name, place in stores.items()}

    eventually(lambda: min(written().values()) >= 48 * MiB, 90, "three chunks are at each store", pause=0.5)
    mimeo.kill()
    broken_off = written()
    assert max(broken_off.values()) < len(data), broken_off
    mimeo.configure(store_defaults=PATIENT, **NO_SCAN)
    mimeo.start()
    wait_all_registered(mimeo, image, 120)
    said = [line for line in mimeo.log_lines() if "going on with what was kept" in line]
    for store in stores:
        [line] = [line for line in said if f"store={store}" in line]
        kept = int(re.search(r"from=(\d+)", line)[1])
        assert 32 * MiB <= kept <= broken_off[store], (line, broken_off)
    assert_copies(mimeo, image, data)
    expected = {store: {name} for store, name in copies(mimeo, image).items()}
    expected["swift"] |= {f"{name}-{n:05}" for name in expected["swift"] for n in range(1, 14)}  # segments of 16 MiB
    assert {store: set(place.left()) for store, place in stores.items()} == expected
    assert_no_secret(mimeo, image)
    images.delete(image)
    wait_nothing_left(mimeo, image)


def test_the_token_ends_in_the_middle_of_a_copy(cloud, mimeo, places, images):
    """Keystone's, by which Swift knows who writes: the next segment comes with a new one, and those before it stay."""
    lifetime = 6
    cloud.keystone.reconfigured({"token": {"expiration": lifetime}})
    mimeo.stores = only(places, "swift")
    mimeo.stores["swift"].section["segment_size"] = "16MiB"
    mimeo.serve(store_defaults={**PATIENT, "bandwidth": "4MiB/s"}, **NO_SCAN)
    data = os.urandom(48 * MiB)
    image = images.create(data)
    eventually(lambda: mimeo.stores["swift"].written(image) > 0, 60, "the first segment is there")
    begun = time.monotonic()
    wait_all_registered(mimeo, image)
    assert time.monotonic() - begun > lifetime, "no token lives so long"
    assert_copies(mimeo, image, data)
    assert [" copying " in line and image in line for line in mimeo.log_lines()].count(True) == 1, "in one go"


# -- refused -----------------------------------------------------------------------------------------------------------

WRONG = "wr0ng-cred3ntial"


# What is said to be done about it.
CURES = {
    "s3": "correct secret_key", "swift": "check user, password", "sftp": "correct user and password",
    "rsync": "correct the user in target, and password", "rbd": "compare the key in its keyring",
}


def test_wrong_credentials(mimeo, places, images, tmp_path):
    """Each store says that it was refused, and what to look at; the others are registered; nobody sees the secret. With
    the right ones, all is made good."""
    if "password" not in places["sftp"].section:
        pytest.fail("the server has a user with a password only where root runs the tests: run them as root")
    keyring, quick = tmp_path / "keyring", {**PATIENT, "timeout": "5s"}  # what was given up is removed after this time
    write_ini(keyring, {"client.mimeo": {"key": new_key()}})
    wrong = {
        "s3": {"secret_key": WRONG}, "rbd": {"keyring": str(keyring)},
        **{kind: {"password": WRONG} for kind in ("swift", "sftp", "rsync")},
    }
    mimeo.stores = only(places, "http", *wrong)
    sections = {f"stores.{kind}": change for kind, change in wrong.items()}
    mimeo.serve(store_defaults=quick, **sections)
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image, stores=["http"])
    for store, cure in CURES.items():
        mimeo.wait_reason(image, store, {"store-refused"})
        assert cure in mimeo.replica(image, store)["reason"]["message"], store
    assert_no_secret(mimeo, image, WRONG)
    assert set(images.mimeo_locations(image)) == {"http"}
    mimeo.stop()
    mimeo.configure(store_defaults=quick)
    mimeo.start()
    wait_all_registered(mimeo, image)
    assert_copies(mimeo, image, data)
    images.delete(image)
    wait_nothing_left(mimeo, image)
