"""Events only wake Mimeo: whatever is sent, lost, doubled or made up, the images' own records decide."""

import json
import os
import uuid

from kombu import Exchange, Queue

from cloud.base import always, eventually
from mimeo import NO_SCAN

MiB = 1 << 20


def envelope(event_type: str, payload, **changes) -> str:
    """A notification as oslo.messaging sends it."""
    message = {
        "message_id": str(uuid.uuid4()), "publisher_id": "image.elsewhere", "event_type": event_type,
        "priority": "INFO", "payload": payload, "timestamp": "2026-01-01 00:00:00.000000",
        "_unique_id": uuid.uuid4().hex, **changes,
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})


def test_an_event_alone_is_enough(mimeo, images):
    """With no scan in reach, the notification of an upload leads to the copies."""
    mimeo.serve(**NO_SCAN)
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_no_event_at_all(cloud, mimeo, images):
    """The broker is down during the create, so the event is lost for ever: the scan finds the image."""
    mimeo.serve()
    cloud.rabbitmq.stop()
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_no_broker_configured(mimeo, images):
    """Without [events] the scan does all, and hidden images are among what it finds."""
    mimeo.serve(events=None)
    plain, hidden = images.create(b"plain"), images.create(b"hidden", os_hidden=True)
    for image, data in ((plain, b"plain"), (hidden, b"hidden")):
        mimeo.wait_registered(image)
        mimeo.assert_complete(image, data)


def test_doubled_and_reordered_events(cloud, mimeo, images):
    """The real events of an image, sent again twice over and backwards, cost nothing and change nothing."""
    with cloud.rabbitmq.connect() as connection:
        exchange = Exchange("glance", "topic", durable=False)
        tap = Queue(f"tap-{uuid.uuid4().hex}", exchange, "notifications.#", durable=False, exclusive=True)
        tap = tap(connection.default_channel)
        tap.declare()
        mimeo.serve(**NO_SCAN)
        data = os.urandom(MiB)
        image = images.create(data)
        mimeo.wait_registered(image)
        bodies = []
        while message := tap.get(no_ack=True):
            bodies.append(message.body)
    assert len(bodies) >= 6, "the events of an upload"
    for body in [*reversed(bodies), *bodies]:
        cloud.rabbitmq.publish(body)
    second = images.create(data)
    mimeo.wait_registered(second)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    for server in cloud.nginx:
        assert len(server.requests("PUT", image)) == 1, "nothing was copied again"


BAD = {
    "no bytes": b"",
    "no JSON": b"this is not JSON {",
    "no text": b"\xff\xfe\x00\x01" * 100,
    "a list": b"[]",
    "null": b"null",
    "no envelope": b"{}",
    "a message that is no JSON": json.dumps({"oslo.version": "2.0", "oslo.message": "{{{"}),
    "a message that is a number": json.dumps({"oslo.version": "2.0", "oslo.message": "1"}),
    "a message that is no string": json.dumps({"oslo.version": "2.0", "oslo.message": 7}),
    "no event type": json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps({"payload": {}})}),
    "a payload of null": envelope("image.update", None),
    "a payload that is a list": envelope("image.update", [1, 2]),
    "an image without an id": envelope("image.update", {"name": "x"}),
    "an id that is a number": envelope("image.update", {"id": 12}),
    "an id that is a path": envelope("image.update", {"id": "../../../etc/passwd"}),
    "deep nesting": b'{"oslo.message":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
FOREIGN = {
    "another service": envelope("compute.instance.create.end", {"instance_id": str(uuid.uuid4())}),
    "a task of Glance": envelope("task.create", {"id": str(uuid.uuid4()), "status": "pending"}),
    "an image nobody knows": envelope("image.update", {"id": str(uuid.uuid4()), "status": "active"}),
    "its deletion": envelope("image.delete", {"id": str(uuid.uuid4()), "deleted": True}),
}


def test_malformed_foreign_and_huge_messages(cloud, mimeo, images):
    """Nothing breaks, nothing after them is lost, and each bad one is counted and logged once."""
    mimeo.serve(**NO_SCAN)
    memory = mimeo.memory()
    for body in [*BAD.values(), *FOREIGN.values()]:
        cloud.rabbitmq.publish(body)
    cloud.rabbitmq.publish(envelope("image.update", {"id": str(uuid.uuid4()), "name": "x" * (24 * MiB)}))
    cloud.rabbitmq.publish(BAD["no JSON"], content_type="application/x-unheard-of", content_encoding="klingon")
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    bad = len(BAD) + 2
    eventually(lambda: mimeo.overview()["events"]["bad"] >= bad, 20, f"{bad} bad messages are counted")
    assert mimeo.overview()["events"]["bad"] == bad, "foreign ones are not bad"
    warnings = [line for line in mimeo.log_lines() if "a message was passed over" in line]
    assert len(warnings) == bad, warnings
    assert mimeo.memory() < memory + 100 * MiB, "the huge message is not kept"


def test_idle_when_all_is_done(cloud, mimeo, images):
    """Mimeo's own PATCH makes an event; looking again finds nothing to do, and so nothing goes round for ever."""
    mimeo.serve()
    image = images.create(os.urandom(1000))
    mimeo.wait_registered(image)
    patches = len(cloud.glance.requests("PATCH", image))
    # Two scans and the event of the own PATCH pass meanwhile.
    always(lambda: len(cloud.glance.requests("PATCH", image)) == patches, 5, "no further PATCH")
