"""Faults on the wire: a proxy in front of each peer cuts, stalls, truncates, corrupts and answers late. The status names
a reason that fits; no bad copy is ever registered; and when the wire is whole again, every copy is there and right.

`MIMEO_ALL_FAULTS=1` breaks it at several places, and not only in the middle of the bits.
"""

import os
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from cloud.base import eventually
from cloud.wire import DOWN, UP, Wire, detour
from mimeo import NO_SCAN
from places import Place, Rbd

MiB = 1 << 20
SIZE = 2 * MiB
MIDDLE = 700_000  # of the bits, and behind all requests and answers without them
PLACES = [MIDDLE, 0, 40_000, SIZE] if os.environ.get("MIMEO_ALL_FAULTS") else [MIDDLE]
LATE = 3  # seconds, and so too late: a store's `timeout` is 2
QUICK = {"store_defaults": {"timeout": "2s"}, "gc": {"interval": "500ms"}}

BROKEN = {"store-unreachable", "store-error"}
SILENT = {"store-stalled", "store-unreachable"}
# What the status may say of a store whose wire does this.
FITTING = {
    "cut": BROKEN, "stall": SILENT, "truncate": {"proof-mismatch", *BROKEN},
    # ssh sees for itself that a byte is not what was sent; and of a request's first byte the server has an opinion.
    "corrupt": {"proof-mismatch", "store-refused", *BROKEN}, "late": SILENT,
}
# Ceph's client connects anew, and asks again, until the store counts as stalled: whatever it is that breaks.
BY_CEPH = dict.fromkeys(FITTING, SILENT)
BY_HTTP = {"http", "s3", "swift"}  # read back over the same wire


@pytest.fixture
def wire():
    """A function that lays a wire to a port."""
    laid: list[Wire] = []

    def lay(target: int, port: int | None = None) -> Wire:
        laid.append(Wire(target, port))
        return laid[-1]

    yield lay
    for each in laid:
        each.stop()


@pytest.fixture
def lead(cloud):
    """A function that has the catalogue lead those who ask for a service's `admin` interface over a wire."""
    undo: list[Callable] = []

    def over(service: str, wire: Wire) -> None:
        keystone = cloud.keystone
        query = f"/endpoints?service_id={keystone.ids[f'service:{service}']}&interface=admin"
        [endpoint] = keystone.admin("GET", query)["endpoints"]

        def set_url(url: str) -> None:
            keystone.admin("PATCH", f"/endpoints/{endpoint['id']}", json={"endpoint": {"url": url}})

        set_url(endpoint["url"].replace(f":{wire.target}", f":{wire.port}"))
        undo.append(lambda: set_url(endpoint["url"]))

    yield over
    for each in undo:
        each()


# -- stores ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def wired(cloud, places, sshd, rsyncd, wire, lead) -> dict[str, tuple[Place, Wire]]:
    """A store of each kind that is reached by TCP, behind a wire of its own."""
    gateway, web = places["s3"].gateway, cloud.nginx[0]
    wires = {
        "http": wire(web.port, cloud.fault_ports[0]), "s3": wire(gateway.port), "swift": wire(gateway.port),
        "sftp": wire(sshd.port), "rsync": wire(rsyncd.port),
    }
    sections = {kind: places[kind].section for kind in wires}
    port = {kind: each.port for kind, each in wires.items()}
    sections["http"]["url"] = f"http://127.0.0.1:{port['http']}/images/"
    sections["s3"]["endpoint"] = f"http://127.0.0.1:{port['s3']}"
    sections["swift"]["interface"] = "admin"
    lead("swift", wires["swift"])
    known = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text(known + known.replace(f":{sshd.port} ", f":{port['sftp']} "))
    sections["sftp"]["port"] = port["sftp"]
    sections["rsync"]["target"] = sections["rsync"]["target"].replace(f":{rsyncd.port}", f":{port['rsync']}")
    # Glance finds its own S3 store by the endpoint in a location.
    options = {name: dict(section) for name, section in cloud.glance.overrides.items()}
    options["s3_1"]["s3_store_host"] = sections["s3"]["endpoint"]
    cloud.glance.reconfigured(options)
    return {kind: (places[kind], wires[kind]) for kind in wires}


@pytest.mark.timeout(300 * len(PLACES))
def test_copies_break_on_their_way(wired, mimeo, images):
    mimeo.stores = {kind: place for kind, (place, _) in wired.items()}
    mimeo.serve(**QUICK)
    for kind in FITTING:
        for after in PLACES if kind != "late" else [0]:
            break_and_heal(mimeo, images, wired, kind, DOWN if kind == "late" else UP, after)


@pytest.fixture
def shown(cloud, places, wire) -> dict[str, tuple[Place, Wire]]:
    """The stores whose copies Glance, and so Mimeo, reads from a web server (`read_url`), which is behind a wire."""
    wired = {}
    for port, kind in zip(cloud.fault_ports, ("file", "sftp", "rsync")):
        section = places[kind].section
        own = urlsplit(section["read_url"]).port
        wired[kind] = (places[kind], wire(own, port))
        section["read_url"] = section["read_url"].replace(f":{own}/", f":{port}/")
    return wired


@pytest.mark.timeout(300)
def test_copies_break_as_they_are_read_from_a_read_url(shown, mimeo, images):
    mimeo.stores = {kind: place for kind, (place, _) in shown.items()}
    mimeo.serve(**QUICK)
    for kind in FITTING.keys() - {"late"}:
        break_and_heal(mimeo, images, shown, kind, DOWN, MIDDLE)


@pytest.fixture
def ceph(storage, wire, mimeo) -> dict[str, tuple[Place, Wire]]:
    """An RBD pool, whose OSD Mimeo reaches over a wire."""
    laid = wire(storage.ceph.osd_port())
    mimeo.extra_env.update(detour(laid, mimeo.dir))
    return {"rbd": (Rbd(storage), laid)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("direction", [UP, DOWN], ids=["as they are written", "as they are read back"])
def test_copies_to_ceph_break(ceph, mimeo, images, direction):
    mimeo.stores = {kind: place for kind, (place, _) in ceph.items()}
    mimeo.serve(**QUICK)
    for kind in FITTING:
        break_and_heal(mimeo, images, ceph, kind, direction, MIDDLE, BY_CEPH)


class Bucket(Place):
    """Of another S3 server than Ceph's, with SHA-256."""

    def __init__(self, server, endpoint: str):
        self.server = server
        super().__init__({
            "type": "s3", "endpoint": endpoint, "bucket": server.bucket, "access_key": server.access_key,
            "secret_key": server.secret_key, "checksum": "sha256",
        })

    def read(self, name):
        return self.server.s3().get_object(Bucket=self.server.bucket, Key=name)["Body"].read()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("size", [SIZE, 20 * MiB], ids=["whole", "in parts"])
def test_a_server_that_checks_refuses_what_was_changed_on_its_way(cloud, storage, seaweedfs, wire, mimeo, images, size):
    laid = wire(seaweedfs.ports["s3.port"])
    place = Bucket(seaweedfs, f"http://127.0.0.1:{laid.port}")
    options = {name: dict(section) for name, section in cloud.glance.overrides.items()}
    options["s3_1"].update(
        s3_store_host=place.section["endpoint"], s3_store_bucket=seaweedfs.bucket,
        s3_store_access_key=seaweedfs.access_key, s3_store_secret_key=seaweedfs.secret_key,
    )
    cloud.glance.reconfigured(options)
    mimeo.stores = {"s3": place}
    mimeo.serve(**QUICK)
    laid.fault("corrupt", UP, MIDDLE)
    data = os.urandom(size)
    image = images.create(data)

    def refused() -> bool:
        reason = mimeo.status(image)["replicas"][0]["reason"]
        return bool(reason) and "not what was sent" in reason["message"]

    eventually(refused, 60, "the server has refused the bytes")
    laid.heal()
    mimeo.wait_registered(image)
    assert assert_right(mimeo, images, image, data) == {"s3"}
    eventually(lambda: len(seaweedfs.left()) == 1, 60, "nothing else is left there")


@pytest.mark.timeout(300 * len(PLACES))
def test_copies_break_as_they_are_read_back(wired, mimeo, images):
    wired = {kind: wired[kind] for kind in BY_HTTP}
    mimeo.stores = {kind: place for kind, (place, _) in wired.items()}
    mimeo.serve(**QUICK)
    for kind in FITTING.keys() - {"late"}:
        break_and_heal(mimeo, images, wired, kind, DOWN, MIDDLE)


def break_and_heal(mimeo, images, wired, kind: str, direction: str, after: int, fitting=FITTING) -> None:
    where = f"{kind} {direction} at {after}"
    data = os.urandom(SIZE)
    for _, wire in wired.values():
        wire.fault(kind, direction, after, LATE)
    image = images.create(data)
    told: dict[str, set[str]] = {store: set() for store in wired}

    def all_told() -> bool:
        replicas = mimeo.status(image)["replicas"]
        for replica in replicas:
            if replica["reason"] and replica["reason"]["code"] != "image-not-active":  # from before it was uploaded
                told[replica["store"]].add(replica["reason"]["code"])
        assert_right(mimeo, images, image, data)
        silent = {store for store, codes in told.items() if not codes}
        # These make good by themselves what was changed on its way, and have nothing to tell.
        registered = {replica["store"] for replica in replicas if replica["state"] == "registered"}
        repaired = registered & {"rsync", "rbd"}
        unmet = {store for store, (_, wire) in wired.items() if not wire.hits}
        assert silent <= repaired and not unmet, f"told {told}; silent {silent - repaired}, not met by {unmet}"
        return True

    eventually(all_told, 120, f"{where}: every store has met the fault, and has a reason", pause=0.3)
    assert all(codes <= fitting[kind] for codes in told.values()), f"{where}: {told}"
    for _, wire in wired.values():
        wire.heal()
    mimeo.wait_registered(image, 60)
    assert assert_right(mimeo, images, image, data) == wired.keys()
    images.delete(image)


def assert_right(mimeo, images, image: str, data: bytes) -> set[str]:
    """Behind every location are the image's bytes. The stores that have one."""
    locations = images.mimeo_locations(image)
    for store, url in locations.items():
        name = next(part for part in reversed(url.split("/")) if part.startswith(image))
        assert mimeo.stores[store].read(name) == data, f"{store} has bad bytes, and they are registered"
    return set(locations)


# -- Glance ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def glance_wire(cloud, wire, lead, mimeo) -> Wire:
    laid = wire(cloud.glance.port)
    lead("glance", laid)
    mimeo.serve(openstack={"interface": "admin"}, **QUICK)
    return laid


def registered_and_right(mimeo, image: str, data: bytes) -> None:
    mimeo.wait_registered(image, 60)
    mimeo.assert_complete(image, data)


@pytest.mark.parametrize("kind", ["cut", "truncate"])
def test_the_source_breaks_off_again_and_again(glance_wire, mimeo, images, kind):
    """Each read is gone on with behind the last byte: the copies are made while the wire is as it is."""
    data = os.urandom(SIZE)
    glance_wire.fault(kind, DOWN, MIDDLE)
    image = images.create(data)
    registered_and_right(mimeo, image, data)
    assert glance_wire.hits >= SIZE // MIDDLE


def test_the_source_stalls(glance_wire, mimeo, images):
    data = os.urandom(SIZE)
    glance_wire.fault("stall", DOWN, MIDDLE)
    image = images.create(data)
    eventually(lambda: glance_wire.hits, 30, "the read stalls")
    assert mimeo.status(image)["state"] == "replicating"
    glance_wire.heal()
    registered_and_right(mimeo, image, data)


def test_the_source_is_corrupted(glance_wire, mimeo, images):
    """Nothing is registered of what is not the image; and one bad read does not condemn the image for good."""
    data = os.urandom(SIZE)
    glance_wire.fault("corrupt", DOWN, MIDDLE)
    image = images.create(data)
    for store in mimeo.stores:
        mimeo.wait_reason(image, store, {"source-mismatch"})
    assert not images.mimeo_locations(image)
    glance_wire.heal()
    registered_and_right(mimeo, image, data)


@pytest.mark.parametrize("kind", ["cut", "truncate"])
def test_glance_cannot_be_asked(glance_wire, mimeo, images, kind):
    data = os.urandom(SIZE)
    glance_wire.fault(kind, DOWN, 0)
    image = images.create(data)
    eventually(lambda: mimeo.overview()["trouble"], 30, "the status says that Glance is away")
    assert mimeo.overview()["trouble"]["code"] in {"image-service-unreachable", "image-service-error"}
    glance_wire.heal()
    registered_and_right(mimeo, image, data)
    eventually(lambda: not mimeo.overview()["trouble"], 30, "and that all is well again")


def test_glance_answers_late(glance_wire, mimeo, images):
    """Later than usual, and not too late."""
    data = os.urandom(SIZE)
    glance_wire.fault("late", DOWN, seconds=1)
    image = images.create(data)
    registered_and_right(mimeo, image, data)


# -- RabbitMQ ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut", "truncate", "stall", "corrupt", "late"])
def test_rabbitmq(cloud, wire, mimeo, images, kind):
    """Events come late or are lost with the wire, and none of it loses an image: what a corrupted event does not tell
    the scan finds, and everything else comes again."""
    laid = wire(cloud.rabbitmq.port)
    url = cloud.rabbitmq.transport_url.replace(f":{cloud.rabbitmq.port}", f":{laid.port}")
    scan = {} if kind == "corrupt" else NO_SCAN
    mimeo.serve(events={"transport_url": url}, **{**QUICK, **scan})
    # Into the first event's body.
    laid.fault(kind, DOWN, 600, seconds=1)
    data = os.urandom(MiB)
    image = images.create(data)
    eventually(lambda: laid.hits, 30, "an event met the fault")
    if kind in ("cut", "truncate"):
        def told():
            events = mimeo.overview()["events"]
            return not events["connected"] and events["last_error"]
        eventually(told, 30, "the status says that the broker is away")
    laid.heal()
    registered_and_right(mimeo, image, data)
    eventually(lambda: mimeo.overview()["events"]["connected"], 30, "it listens again")
