"""`kill -9` at any moment: after a restart every image is complete, and no bits exist that the ledger does not know."""

import os
import threading
import time

import pytest

from cloud.base import eventually

MiB = 1 << 20
KILLS = int(os.environ.get("MIMEO_KILLS", 20))  # more of them, when somebody has the time


def assert_only_registered_objects(mimeo, images, made: dict[str, bytes]) -> None:
    """Objects that a killed attempt left were known before they were written, and so are found and removed."""
    for store, server in mimeo.stores.items():
        wanted = {images.mimeo_locations(image)[store].removeprefix(server.url) for image in made}
        eventually(
            lambda s=store, w=wanted: {path.name for path in mimeo.objects(s)} == w, 60,
            f"{store} holds the registered objects and no others",
        )


@pytest.mark.timeout(240 + 10 * KILLS)
def test_kill_9_at_any_moment_of_many_creates(mimeo, images, dice):
    made: dict[str, bytes] = {}
    mimeo.serve()

    def create(number: int) -> None:
        data = os.urandom(4 * MiB + number)
        made[images.create(data)] = data

    for number in range(KILLS):
        client = threading.Thread(target=create, args=(number,))
        client.start()
        time.sleep(dice.uniform(0, 1.2))  # the moment of the blow, not a wait for something
        mimeo.kill()
        client.join(60)
        mimeo.start()
    assert len(made) == KILLS
    for image in made:
        mimeo.wait_registered(image, timeout=120)
    for image, data in made.items():
        mimeo.assert_complete(image, data)
    assert_only_registered_objects(mimeo, images, made)


def test_kill_9_in_the_middle_of_a_write(cloud, mimeo, images, faulty):
    """Killed while the bits are on their way to a store that publishes even what was cut short."""
    slow = faulty()
    slow.fault("PUT", "rate", 2 * MiB)
    mimeo.use(*cloud.nginx[:2], slow)
    mimeo.serve()
    data = os.urandom(16 * MiB)
    image = images.create(data)
    eventually(lambda: slow.requests("PUT", image), 30, "the copy has begun")
    mimeo.kill()
    slow.heal()
    mimeo.start()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert_only_registered_objects(mimeo, images, {image: data})


def test_a_clean_stop_in_mid_copy(cloud, mimeo, images, faulty):
    """SIGTERM ends it soon, with exit code 0, whatever is being copied; the restart completes it."""
    slow = faulty()
    slow.fault("PUT", "rate", MiB)
    mimeo.use(*cloud.nginx[:2], slow)
    mimeo.serve()
    data = os.urandom(16 * MiB)
    image = images.create(data)
    eventually(lambda: slow.requests("PUT", image), 30, "the copy has begun")
    mimeo.process.terminate()
    assert mimeo.process.wait(15) == 0
    slow.heal()
    mimeo.start()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_a_lost_ledger_loses_no_image(mimeo, images):
    """A new ledger beside the old copies: every image is registered again, and read everywhere."""
    mimeo.serve()
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    mimeo.stop()
    for path in mimeo.dir.glob("mimeo.db*"):
        path.unlink()
    mimeo.start()
    eventually(lambda: mimeo.status(image)["state"] == "registered", 60, "the new ledger knows the image again")
    assert images.download(image) == data
