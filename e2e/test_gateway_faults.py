"""Each fault at each stage of an upload through the gateway: what the client gets, what Glance has, and what is on the
stores when the fault is over. The table in docs/gateway.md is this one."""

import os
import signal
import socket
import sqlite3

import pytest

from cloud.base import always, eventually
from cloud.wire import DOWN, UP, Wire

MiB = 1 << 20
SIZE = 2 * MiB

# Stages: Glance has the head of the request and nothing else; half of the body passed, and the stores take it; Glance has all
# of it and its answer is on the way; the client has its answer, and no copy is proven.
HEAD, MIDDLE, END, AFTER = "head", "middle", "end", "after"
BROKEN = "broken off"  # instead of an answer
NOTHING, COMPLETE = "nothing", "complete"  # on the stores


class Upload:
    """One upload, step by step."""

    def __init__(self, lab, image: str | None = None, token: str | None = None, kind: str = "application/octet-stream"):
        self.lab, self.data = lab, os.urandom(SIZE)
        self.image = image or lab.images.record()
        self.token = token or lab.images.keystone.token("admin").value
        self.kind, self.sent, self.status = kind, 0, None
        self.connection: socket.socket | None = None

    def go_to(self, stage: str) -> "Upload":
        self.head()
        self.lab.images.wait_status(self.image, "saving")
        if stage == HEAD:
            return self
        self.send(SIZE // 2)
        eventually(lambda: all(store.requests("PUT", self.image) for store in self.lab.stores), 30, "the stores take it")
        if stage == END:
            self.lab.wire.fault("stall", DOWN)
            self.send(SIZE)
            self.lab.images.wait_status(self.image, "active")
        if stage == AFTER:
            for store in self.lab.stores:
                store.fault("GET", "hold")
            assert self.answer() == 204
        return self

    def head(self) -> None:
        self.connection = socket.create_connection(self.lab.address, timeout=60)
        self.connection.sendall((
            f"PUT /v2/images/{self.image}/file HTTP/1.1\r\nHost: glance\r\nContent-Type: {self.kind}\r\n"
            f"X-Auth-Token: {self.token}\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n"
        ).encode())

    def send(self, until: int) -> None:
        self.connection.sendall(self.data[self.sent:until])
        self.sent = until

    def answer(self):
        """Sends what is left, and gives the status of the answer; the first one that there was."""
        if self.status is None:
            try:
                self.send(SIZE)
            except OSError:
                pass  # The answer may be there all the same.
            self.answer_to_the_head()
        return self.status

    def answer_to_the_head(self):
        """As from a client that keeps its body until it has an answer."""
        try:
            said = self.connection.recv(65536)
        except OSError:
            said = b""
        self.status = int(said.split(b" ")[1]) if said else BROKEN
        return self.status


class Lab:
    def __init__(self, cloud, mimeo, stores, gateway, through_a_wire: bool = True):
        self.cloud, self.mimeo, self.images, self.stores = cloud, mimeo, cloud.images, stores
        self.wire = Wire(cloud.glance.port)
        mimeo.use(*stores)
        upstream = [f"http://127.0.0.1:{self.wire.port}" if through_a_wire else cloud.glance.url]
        url = gateway(gateway={"upstream": upstream, "ack": "none", "stop_timeout": "20s"})
        host, _, port = url.removeprefix("http://").partition(":")
        self.address = (host, int(port))

    def heal(self) -> None:
        self.wire.heal()
        for store in self.stores:
            store.heal()

    def check(self, upload: Upload, answer, status: str, left: str) -> None:
        """What became of the upload, once the fault is over."""
        assert upload.answer() == answer
        self.images.wait_status(upload.image, status)
        if left == COMPLETE:
            self.mimeo.wait_registered(upload.image)
            self.mimeo.assert_complete(upload.image, upload.data)
        else:
            eventually(lambda: not self.copies(upload.image), 60, "the stores are empty")
            assert self.images.show(upload.image)["locations"] == []

    def copies(self, image: str) -> list:
        return [path for store in self.mimeo.stores for path in self.mimeo.objects(store, image)]


@pytest.fixture
def lab(cloud, mimeo, faulty, gateway):
    made = Lab(cloud, mimeo, [faulty(), faulty()], gateway)
    yield made
    made.wire.stop()


@pytest.fixture
def lab_without_a_wire(cloud, mimeo, faulty, gateway):
    """A wire loses what Glance says just before it hangs up."""
    made = Lab(cloud, mimeo, [faulty(), faulty()], gateway, through_a_wire=False)
    yield made
    made.wire.stop()


@pytest.mark.parametrize("stage, status, left", [(HEAD, "queued", NOTHING), (MIDDLE, "queued", NOTHING), (END, "active", COMPLETE)])
def test_the_client_goes_away(lab, stage, status, left):
    upload = Upload(lab).go_to(stage)
    upload.connection.close()
    upload.status = BROKEN
    lab.wire.heal()
    lab.check(upload, BROKEN, status, left)


def test_glance_refuses(lab_without_a_wire):
    """Its own answer, and no byte on any store: nothing was begun there."""
    lab, images = lab_without_a_wire, lab_without_a_wire.images
    active = images.create(b"bits")
    lab.mimeo.wait_registered(active)
    queued, public = images.record(), images.record(visibility="public")
    alice = images.keystone.token("alice").value
    unknown = "3bd3b8c6-0000-4000-8000-000000000000"
    refused = {
        401: (queued, {"token": "no"}), 403: (public, {"token": alice}), 404: (unknown, {}),
        409: (active, {}), 415: (queued, {"kind": "text/plain"}),
    }
    for status, (image, more) in refused.items():
        waits = Upload(lab, image, **more)
        waits.head()
        assert waits.answer_to_the_head() == status
        # Glance closes with the body unread.
        for _ in range(5):
            sends = Upload(lab, image, **more)
            sends.head()
            assert sends.answer() == status
    begun = [seen for store in lab.stores for seen in store.requests("PUT") if seen.name.split(".")[0] != active]
    assert (begun, images.show(queued)["status"], images.show(public)["status"]) == ([], "queued", "queued")


def test_glance_refuses_what_is_too_large(lab_without_a_wire):
    """In the middle of the upload, when the stores have taken some of it."""
    lab = lab_without_a_wire
    lab.cloud.glance.reconfigured({"DEFAULT": {"image_size_cap": SIZE - MiB // 2}})
    upload = Upload(lab).go_to(MIDDLE)
    lab.check(upload, 413, "queued", NOTHING)


@pytest.mark.parametrize("stage, answer, status, left", [
    # A Glance that is killed leaves the image as it was at that moment.
    (HEAD, 502, "saving", NOTHING), (MIDDLE, 502, "saving", NOTHING), (END, 502, "active", COMPLETE), (AFTER, 204, "active", COMPLETE),
])
def test_glance_is_killed(lab, stage, answer, status, left):
    upload = Upload(lab).go_to(stage)
    lab.cloud.glance.kill()
    if stage == END:
        # What it answered is lost on the way.
        lab.wire.cut()
    got = upload.answer()
    assert got in (answer, BROKEN) if stage in (HEAD, MIDDLE) else got == answer
    upload.status = answer
    lab.cloud.glance.start()
    lab.heal()
    lab.check(upload, answer, status, left)


@pytest.mark.parametrize("stage", [HEAD, MIDDLE, END])
def test_glance_stalls_for_a_while(lab, stage):
    """For less than the four seconds after which it would give up itself."""
    upload = Upload(lab)
    if stage == HEAD:
        lab.wire.fault("stall", UP)
        upload.head()
    else:
        upload.go_to(stage)
    if stage == MIDDLE:
        lab.wire.fault("stall", UP)
    always(lambda: not lab.images.mimeo_locations(upload.image), 1, "nothing is registered before Glance's answer")
    lab.wire.heal()
    lab.check(upload, 204, "active", COMPLETE)


@pytest.mark.parametrize("fault, stage", [
    ("refuses", HEAD), ("hangs up", MIDDLE), ("stalls", MIDDLE), ("killed", MIDDLE), ("full", END), ("killed", END),
    ("refuses to be read", AFTER), ("killed", AFTER),
])
def test_a_store_fails(lab, fault, stage):
    """The client never notices, the other store has its copy, and this one has it once it is well."""
    bad, good = lab.stores
    before = {"refuses": ("status", 503), "hangs up": ("close", 0), "stalls": ("stall", 0), "full": ("status", 507)}
    if fault in before:
        bad.fault("PUT", *before[fault])
    upload = Upload(lab).go_to(stage)
    if fault == "killed":
        bad.down()
    if fault == "refuses to be read":
        bad.fault("GET", "status", 503)
    lab.wire.heal()
    good.heal()
    if stage == AFTER:
        bad.release()
    assert upload.answer() == 204
    lab.mimeo.wait_registered(upload.image, stores=["http2"])
    assert set(lab.images.mimeo_locations(upload.image)) == {"http2"}
    lab.heal()
    lab.check(upload, 204, "active", COMPLETE)


@pytest.mark.parametrize("stage", [HEAD, MIDDLE, END, AFTER])
def test_the_ledger_is_down(lab, stage):
    """The upload passes. What could not be noted is made anew."""
    upload = Upload(lab).go_to(stage)
    ledger = sqlite3.connect(lab.mimeo.ledger, isolation_level=None)
    ledger.execute("BEGIN EXCLUSIVE")
    try:
        lab.heal()
        assert upload.answer() == 204
    finally:
        ledger.execute("ROLLBACK")
        ledger.close()
    lab.check(upload, 204, "active", COMPLETE)


@pytest.mark.parametrize("stage", [HEAD, MIDDLE, END, AFTER])
def test_mimeo_is_told_to_end(lab, stage):
    """It ends when the upload is over; what is left to do is done after the next start."""
    upload = Upload(lab).go_to(stage)
    lab.mimeo.process.send_signal(signal.SIGTERM)
    lab.heal()
    assert upload.answer() == 204
    assert lab.mimeo.process.wait(30) == 0
    lab.mimeo.start()
    lab.check(upload, 204, "active", COMPLETE)


@pytest.mark.parametrize("stage, answer, status, left", [
    (HEAD, BROKEN, "queued", NOTHING), (MIDDLE, BROKEN, "queued", NOTHING), (END, BROKEN, "active", COMPLETE),
    (AFTER, 204, "active", COMPLETE),
])
def test_mimeo_is_killed(lab, stage, answer, status, left):
    upload = Upload(lab).go_to(stage)
    lab.mimeo.kill()
    assert upload.answer() == answer
    lab.heal()
    lab.mimeo.start()
    lab.check(upload, answer, status, left)
