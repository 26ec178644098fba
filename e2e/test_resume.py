"""A copy that was interrupted goes on where the store can: what Apache has kept is not sent again."""

import os

import pytest

from cloud.base import eventually

MiB = 1 << 20
CHUNK = 16 * MiB  # as large as what Mimeo keeps digests of
SIZE = 200 * MiB


@pytest.fixture
def interrupted(cloud, mimeo, images):
    """An image of which Apache, the only store, has more than two chunks when Mimeo is killed; with its bytes."""
    mimeo.use(cloud.apache)
    mimeo.serve(**{"stores.http1": {"bandwidth": "20MiB/s"}})
    data = os.urandom(SIZE)
    image = images.create(data)
    eventually(lambda: kept(mimeo, image) > 2 * CHUNK + MiB, 60, "more than two chunks are there")
    mimeo.kill()
    eventually(lambda: any(put.status == 400 for put in cloud.apache.puts(image)), 20, "Apache knows that it broke off")
    assert 2 * CHUNK < kept(mimeo, image) < SIZE
    mimeo.configure()
    return image, data


def kept(mimeo, image: str) -> int:
    return sum(path.stat().st_size for path in mimeo.objects("http1", image))


def test_what_was_kept_is_not_sent_again(cloud, mimeo, images, interrupted):
    image, data = interrupted
    [partial] = mimeo.objects("http1", image)
    before, there = len(cloud.apache.puts(image)), kept(mimeo, image)
    mimeo.start()
    mimeo.wait_registered(image, timeout=120)
    mimeo.assert_complete(image, data)
    assert mimeo.objects("http1", image) == [partial], "the same object went on"
    after = cloud.apache.puts(image)[before:]
    assert all(put.first is not None and put.status == 204 for put in after), after
    sent = [put for put in after if put.length > 1]  # a single byte only asks whether the server takes ranges
    assert CHUNK <= sent[0].first <= there, "from behind chunks that are known to be right"
    assert sum(put.length for put in sent) == SIZE - sent[0].first
    assert images.download(image) == data


def test_what_was_kept_is_read_before_it_is_trusted(cloud, mimeo, images, interrupted):
    """Bytes that changed while Mimeo was down, in the first chunk: nothing behind them is taken for right."""
    image, data = interrupted
    [partial] = mimeo.objects("http1", image)
    with partial.open("r+b") as file:
        file.seek(MiB)
        file.write(bytes(byte ^ 0xFF for byte in data[MiB : MiB + 100]))
    mimeo.start()
    mimeo.wait_registered(image, timeout=120)
    eventually(lambda: len(mimeo.objects("http1", image)) == 1, 60, "an object that was given up is removed")
    mimeo.assert_complete(image, data)
    assert images.download(image) == data
