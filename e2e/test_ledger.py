"""The ledger is lost, comes back old, or has no room: no copy that is right is sent again, no bits become unknown."""

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from cloud.base import eventually
from places import Directory

MiB = 1 << 20


@pytest.fixture
def four(cloud, mimeo, exported):
    """Three nginx servers, which cannot be listed, and a directory, which can."""
    path = cloud.dir / "runs" / f"directory-{os.urandom(4).hex()}"
    path.mkdir(parents=True)
    shown = exported(path)
    mimeo.stores["file"] = Directory({"type": "file", "path": str(path), "read_url": shown.url}, path)
    mimeo.stores["file"].url, mimeo.stores["file"].objects = shown.url, path
    return path


def sent(cloud, path: Path) -> tuple[list[int], dict[str, int]]:
    """How many uploads each nginx has had, and the directory's files with their inodes: another file has another."""
    files = {each.name: each.stat().st_ino for each in path.iterdir()}
    return [len(server.requests("PUT")) for server in cloud.nginx], files


def history(mimeo, image: str, store: str) -> list[str]:
    return [line["State"] for line in mimeo.ask("status", image, "--history") if line["Store"] == store]


def take_location(images, image: str, prefix: str) -> None:
    urls = [location["url"] for location in images.show(image)["locations"]]
    place = next(number for number, url in enumerate(urls) if url.startswith(prefix))
    images.patch(image, {"op": "remove", "path": f"/locations/{place}"})


def lose(mimeo) -> None:
    for path in mimeo.dir.glob("mimeo.db*"):
        path.unlink()


def test_a_lost_ledger_is_found_again_at_the_images_and_the_stores(cloud, mimeo, images, four):
    mimeo.serve()
    made = {images.create(data): data for data in (os.urandom(3 * MiB + 1), os.urandom(1), os.urandom(20 * MiB))}
    for image in made:
        mimeo.wait_registered(image)
        mimeo.assert_complete(image, made[image])
    first = next(iter(made))
    assert history(mimeo, first, "http1") == ["wanted", "copying", "stored", "proven", "registered"]
    mimeo.stop()
    lose(mimeo)
    # What a copy that failed had left behind, whole by chance or not, and a file of somebody else's.
    (four / f"{first}.7").write_bytes(b"not the image")
    (four / "notes.txt").write_text("mine")
    # One location was lost with the ledger; only a listing shows its object.
    take_location(images, first, mimeo.stores["file"].url)
    before = sent(cloud, four)
    mimeo.start()
    for image, data in made.items():
        mimeo.wait_registered(image)
        assert images.download(image) == data
    assert sent(cloud, four) == before, "bytes were sent again"
    assert history(mimeo, first, "http1") == ["stored", "proven", "registered"], "read back, not believed"
    found = eventually(lambda: mimeo.ask("gc"), 20, "what nobody holds is shown")
    assert [entry["Object"] for entry in found] == [f"{first}.7"], found
    assert mimeo.run("gc", "--confirm")[0] == 0
    eventually(lambda: not (four / f"{first}.7").exists(), 20, "it goes with an operator's word")
    assert (four / "notes.txt").read_text() == "mine"
    for image, data in made.items():
        mimeo.assert_complete(image, data)


def test_a_bad_copy_is_not_adopted(cloud, mimeo, images, four):
    mimeo.serve()
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    mimeo.stop()
    lose(mimeo)
    bad = mimeo.objects("http2", image)[0]
    bad.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    mimeo.start()
    mimeo.wait_registered(image, stores=["http1", "http3", "file"])
    good = eventually(
        lambda: [path for path in mimeo.objects("http2", image) if path != bad and path.read_bytes() == data], 60,
        "it is made anew",
    )
    eventually(
        lambda: mimeo.stores["http2"].url + good[0].name in [each["url"] for each in images.show(image)["locations"]], 60,
        "the new copy is registered",
    )


def test_an_old_backup_comes_back(cloud, mimeo, images, four):
    """Made while images are copied. Since then one was made, and one deleted."""
    mimeo.serve()
    kept, deleted = os.urandom(MiB), os.urandom(MiB)
    kept, deleted = {images.create(kept): kept}, {images.create(deleted): deleted}
    gone = next(iter(deleted))
    mimeo.wait_registered(gone)
    busy = os.urandom(30 * MiB)
    busy = {images.create(busy): busy}
    backup = mimeo.dir / "backup.db"
    code, _, err = mimeo.run("ledger", "backup", str(backup))
    assert code == 0 and str(backup) in err, err
    for image in (*kept, *busy):
        mimeo.wait_registered(image)
    new = os.urandom(2 * MiB)
    new = {images.create(new): new}
    mimeo.wait_registered(next(iter(new)))
    images.delete(gone)
    eventually(lambda: not any(mimeo.objects(store, gone) for store in mimeo.stores), 60, "its copies are gone")
    code, _, err = mimeo.run("ledger", "restore", str(backup))
    assert code == 1 and "another `mimeo serve`" in err, err
    mimeo.stop()
    before = sent(cloud, four)
    # Whose it was, though root puts the backup back.
    ledger, nobody = mimeo.dir / "mimeo.db", 65534
    os.chown(ledger, nobody, nobody)
    code, _, err = mimeo.run("ledger", "restore", str(backup))
    assert code == 0, err
    owners = {path.name: path.stat().st_uid for path in (ledger, mimeo.dir / "mimeo.db.lock")}
    assert owners == {"mimeo.db": nobody, "mimeo.db.lock": nobody}
    mimeo.start()
    for image, data in {**kept, **busy, **new}.items():
        mimeo.wait_registered(image)
        mimeo.assert_complete(image, data)
    assert sent(cloud, four) == before, "bytes were sent again"
    eventually(lambda: mimeo.run("status", gone)[0] == 1, 60, "the deleted image is forgotten")
    assert mimeo.ask("status", gone, "--history")[-1]["State"] == "forgotten"
    eventually(lambda: mimeo.ask("gc") == [], 30, "nothing waits for its removal")


@pytest.fixture
def small_disk(mimeo):
    """A file system of 3 MiB for the ledger."""
    place = mimeo.dir / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.fail(f"only root may mount the small disk: run the tests as root ({mounted.stderr.strip()})")
    yield place
    mimeo.stop()
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def test_the_ledgers_disk_is_full(mimeo, images, small_disk):
    """Work stops, and says why; nothing is at a store that the ledger does not know; with room it goes on."""
    mimeo.ledger = small_disk / "mimeo.db"
    mimeo.serve(api={"token_file": str(mimeo.dir / "mimeo.token")})
    data = os.urandom(MiB)
    made = {images.create(data): data}
    mimeo.wait_registered(next(iter(made)))
    filler = fill(small_disk)

    def told():
        # Its file at the side may have room for a few commits yet.
        if len(made) < 30:
            made[images.create(b"more")] = b"more"
        return (mimeo.overview()["trouble"] or {}).get("code") == "ledger"

    eventually(told, 60, "it is told")
    with sqlite3.connect(f"file:{mimeo.ledger}?mode=ro", uri=True) as ledger:
        known = {tuple(row) for row in ledger.execute("SELECT store, name FROM objects")}
    there = {(store, path.name) for store in mimeo.stores for path in mimeo.objects(store)}
    assert there <= known, there - known
    assert any("ledger" in line for line in mimeo.log_lines())
    filler.unlink()
    for image, content in made.items():
        mimeo.wait_registered(image, timeout=90)
        mimeo.assert_complete(image, content)
    assert (mimeo.overview()["trouble"] or {}).get("code") != "ledger"
