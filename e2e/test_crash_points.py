"""Death at every named point of the program: started again, it makes everything good, leaves nothing over, and at no
moment is there a byte that its ledger does not know of.

The points are read from the sources (`mimeo_crash::point`). Each has a trial of its own: an image, directories at the
stores, a ledger, and a rule that keeps the trials apart, since all are at the same Glance. Several run at a time.
"""

import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from cloud import Cloud
from cloud.base import eventually, free_port
from cloud.images import Images
from cloud.nginx import Exporter
from mimeo import NO_SCAN, ROOT, Mimeo
from places import Directory, Place

MiB = 1 << 20
CHUNK = 16 * MiB  # as large as what Mimeo keeps digests of
AT_A_TIME = 6
QUICK = {"store_defaults": {"timeout": "2s"}, "gc": {"interval": "500ms", "grace": "1s"}}

# Which scenario leads to a point. A number behind a colon: at which passage.
POINTS = {
    "start": ["ledger-made", "ledger-migrated", "serve-claimed", "token-written", "serve-listens"],
    "copy": [
        "scan-marked", "scan-walked", "look-planned", "look-noted", "attempt-chosen", "attempt-known", "object-opened:2",
        "bytes-written:3", "object-complete", "object-closed", "object-noted:2", "copy-read-back", "copy-proven:2",
        "register-probed", "locations-added", "locations-seen", "location-noted", "turn-done", "turn-settled",
        "ledger-written:9", "ledger-committed:7", "file-synced", "file-renamed", "http-directory-made",
    ],
    "failure": ["failure-noted"],
    "event": ["events-heard", "events-kept", "events-acknowledged"],
    "deletion": ["sweep-allowed", "sweep-removed", "sweep-noted", "sweep-forgot"],
    "going on": ["chunks-noted", "chunks-done", "kept-proven"],
    "in ranges": ["http-byte-put", "http-segment-ended"],
    "upload": ["upload-begun", "upload-taken"],
    "signal": ["serve-stops", "serve-stopped", "serve-reloaded"],
    "Glance's copy": ["ask-noted", "ask-sent"],
    "s3": ["s3-upload-begun", "s3-part-answered:2", "s3-parts-sent"],
    "swift": ["swift-put-ended:2"],
    "sftp": ["sftp-written"],
    "rsync": ["rsync-spooled", "rsync-sent"],
    "taking": ["object-taken"],
    "rbd": ["rbd-image-made", "rbd-flushed", "rbd-snapshot-made"],
    "deletion at s3": ["s3-uploads-aborted"],
    "deletion at swift": ["swift-manifest-removed"],
    "orphan at rbd": ["rbd-unprotected", "rbd-snapshot-removed"],
    "bad copy": ["bad-copy-found", "copy-verified", "locations-arranged"],
    "word": ["drain-said", "move-said", "rename-followed"],
    "lost ledger": ["found-entered"],
    "backup": ["backup-copied", "ledger-put-aside"],
}


def test_every_point_has_a_scenario():
    sources = sorted((ROOT / "crates").glob("*/src/**/*.rs"))
    text = "".join(source.read_text() for source in sources if source.parts[-3] != "crash")
    there = re.findall(r'mimeo_crash::point\("([^"]+)"\)', text)
    assert len(there) == len(set(there)), "each name stands once in the sources"
    assert sorted(there) == sorted(point.split(":")[0] for points in POINTS.values() for point in points)
    assert len(there) >= 30


# -- a trial -----------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """A point, and a Mimeo that dies there."""

    point: str
    cloud: Cloud
    stores: dict[str, Place]
    data: bytes = b""
    image: str = ""
    config: dict = field(default_factory=dict)

    def __post_init__(self):
        self.key = re.sub(r"\W", "-", self.point)
        self.mimeo = Mimeo(self.cloud.dir / "runs" / f"crash-{self.key}-{os.urandom(3).hex()}", self.cloud)
        self.mimeo.stores = self.stores

    def create(self, data: bytes) -> None:
        self.data = data
        self.image = self.cloud.images.create(data, trial=self.key)

    def configure(self, **more) -> None:
        """Without events unless they are asked for: the scan at the start finds the image."""
        rule = {"name": "its own", "when": f'image.properties.trial == "{self.key}"'}
        sections: dict = {"events": None, **NO_SCAN, **QUICK, "rules": [rule]}
        for name, options in {**self.config, **more}.items():
            old = sections.get(name)
            sections[name] = {**old, **options} if isinstance(old, dict) and isinstance(options, dict) else options
        self.mimeo.configure(**sections)

    def arm(self, point: str = "", **more) -> None:
        """Starts it so that it will die at the point."""
        self.configure(**more)
        self.mimeo.extra_env = {"MIMEO_CRASH": point or self.point}
        try:
            self.mimeo.start()
        except RuntimeError:
            pass  # it may die before it listens

    def wait_for_death(self) -> None:
        code = self.mimeo.process.wait(60)
        assert code == -signal.SIGKILL, f"it ended with {code} and not by the point"
        self.mimeo.kill()
        unknown = self.there() - self.known(None)
        assert not unknown, f"there at the stores, and unknown to the ledger: {unknown}"

    def start(self, **more) -> None:
        self.configure(**more)
        self.mimeo.extra_env = {}
        self.mimeo.start()

    def there(self) -> set[tuple[str, str]]:
        """Whatever of the image lies at the stores, by the names of its objects."""
        name = re.compile(rf"{self.image}\.[0-9a-f]+")
        found = ((store, name.search(left)) for store, place in self.stores.items() for left in place.left())
        return {(store, match[0]) for store, match in found if match}

    def known(self, state: str | None) -> set[tuple[str, str]]:
        """The objects in the ledger, as it lies on the disk."""
        if not self.mimeo.ledger.exists():
            return set()
        with sqlite3.connect(self.mimeo.ledger) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'objects'").fetchone():
                return set()
            rows = database.execute("SELECT store, name, state FROM objects WHERE image = ?", (self.image,))
            return {(store, name) for store, name, of in rows if state in (None, of)}

    def digests(self) -> int:
        with sqlite3.connect(self.mimeo.ledger) as database:
            return database.execute("SELECT count(*) FROM chunks").fetchone()[0]

    def wait_complete(self) -> None:
        """Registered everywhere, the bytes right, and nothing else left, in the ledger or at a store."""
        self.mimeo.wait_registered(self.image, 90)
        locations = self.cloud.images.mimeo_locations(self.image)
        names = {(store, re.search(rf"{self.image}\.[0-9a-f]+", url)[0]) for store, url in locations.items()}
        assert {store for store, _ in names} == set(self.stores)
        eventually(lambda: self.there() == names, 60, f"nothing but {names} is left")
        eventually(lambda: self.known("kept") == names == self.known(None), 20, "the ledger has these objects alone")
        for store, name in names:
            assert self.stores[store].read(name) == self.data, f"{store} has other bytes"

    def delete(self) -> None:
        self.cloud.images.delete(self.image)

    def wait_nothing_left(self) -> None:
        eventually(lambda: not self.there(), 60, "nothing is left at the stores")
        eventually(lambda: not self.known(None), 20, "nor in the ledger")


def run(trials: list[Trial], story: Callable[[Trial], None]) -> None:
    """Tells the story of each trial; all that fail are named."""

    def told(trial: Trial) -> str | None:
        try:
            story(trial)
            return None
        except Exception as error:
            log = "\n".join(trial.mimeo.log_lines()[-25:])
            return f"{trial.point}: {type(error).__name__}: {error}\n{log}"
        finally:
            trial.mimeo.discard()
            if trial.image and trial.cloud.images.exists(trial.image):
                trial.delete()

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        failures = [failure for failure in pool.map(told, trials) if failure]
    assert not failures, f"{len(failures)} of {len(trials)} points:\n\n" + "\n\n".join(failures)


# -- stores ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(cloud, exported) -> tuple[Path, Exporter]:
    directory = cloud.dir / "runs" / f"files-{os.urandom(3).hex()}"
    directory.mkdir(parents=True)
    return directory, exported(directory)


def web(server, key: str) -> Directory:
    """Directories of its own at a web server, which are made with the first object."""
    return Tree({"type": "http", "url": f"{server.url}{key}/deep/"}, server.objects / key / "deep")


class Tree(Directory):
    def left(self):
        return super().left() if self.path.exists() else []


def in_files(files: tuple[Path, Exporter], key: str) -> Directory:
    directory, exporter = files
    path = directory / key
    path.mkdir()
    return Directory({"type": "file", "path": str(path), "read_url": f"{exporter.url}{key}/"}, path)


def trials(cloud: Cloud, files: tuple[Path, Exporter], *groups: str) -> list[Trial]:
    """At nginx, Apache and a directory."""
    made = []
    for point in (point for group in groups for point in POINTS[group]):
        trial = Trial(point, cloud, {})
        trial.stores |= {
            "nginx": web(cloud.nginx[0], trial.key), "apache": web(cloud.apache, trial.key),
            "file": in_files(files, trial.key),
        }
        made.append(trial)
    return made


@pytest.fixture
def witness(images):
    """An image of somebody else: only a token that sees such may conclude from a 404 that an image is gone."""
    images.as_user("alice").record()


# -- the scenarios -----------------------------------------------------------------------------------------------------


def dies_and_completes(trial: Trial, size: int = MiB) -> None:
    trial.create(os.urandom(size))
    trial.arm()
    trial.wait_for_death()
    trial.start()
    trial.wait_complete()


def test_starting_and_copying(cloud, files):
    run(trials(cloud, files, "start", "copy"), dies_and_completes)


def dies_of_a_failure(trial: Trial) -> None:
    path = trial.stores["file"].path
    path.rename(path.with_suffix(".away"))
    trial.stores["file"] = Tree(trial.stores["file"].section, path)
    trial.create(os.urandom(MiB))
    trial.arm()
    trial.wait_for_death()
    path.with_suffix(".away").rename(path)
    trial.start()
    trial.wait_complete()


def hears_and_dies(trial: Trial) -> None:
    events = {"transport_url": trial.cloud.rabbitmq.transport_url, "queue": trial.mimeo.queue}
    trial.arm(events=events)
    # An event of another trial's image may be its death before that.
    mimeo = trial.mimeo
    eventually(lambda: not mimeo.running() or mimeo.consumers() > 0, 30, "it listens")
    trial.create(os.urandom(MiB))
    trial.wait_for_death()
    trial.start(events=events)
    trial.wait_complete()


def dies_behind_the_gateway(trial: Trial) -> None:
    """The client's upload breaks off or its answer is lost; Glance has the image, or it is uploaded once more."""
    images, address = trial.cloud.images, f"127.0.0.1:{free_port()}"
    trial.data = os.urandom(MiB)
    trial.arm(gateway={"listen": address, "upstream": [trial.cloud.glance.url]})
    gateway = Images(SimpleNamespace(url=f"http://{address}"), trial.cloud.keystone)

    def breaks_off() -> bool:
        """Unless the gateway could not prepare for it in time, on a busy machine: then the upload goes on alone."""
        trial.image = images.record(trial=trial.key)
        try:
            gateway.upload(trial.image, trial.data)
        except requests.RequestException:
            return True
        trial.delete()
        return False

    assert any(breaks_off() for _ in range(5)), "the gateway was never ready for an upload"
    trial.wait_for_death()
    ended = eventually(lambda: {"active", "queued"} & {images.show(trial.image)["status"]}, 30, "the upload is over")
    if "queued" in ended:
        images.upload(trial.image, trial.data)
    trial.start()
    trial.wait_complete()


def is_told_to_end_and_dies(trial: Trial) -> None:
    """In the middle of a copy."""
    trial.create(os.urandom(4 * MiB))
    trial.arm(store_defaults={"bandwidth": "1MiB/s"})
    eventually(lambda: trial.there(), 30, "the copy has begun")
    told = signal.SIGHUP if trial.point == "serve-reloaded" else signal.SIGTERM
    trial.mimeo.process.send_signal(told)
    trial.wait_for_death()
    trial.start()
    trial.wait_complete()


def test_failures_events_uploads_and_signals(cloud, files):
    stories = {
        "failure": dies_of_a_failure, "event": hears_and_dies, "upload": dies_behind_the_gateway,
        "signal": is_told_to_end_and_dies,
    }
    story = {point: story for group, story in stories.items() for point in POINTS[group]}
    run(trials(cloud, files, *stories), lambda trial: story[trial.point](trial))


def loses_its_image_and_dies(trial: Trial, size: int = MiB) -> None:
    trial.create(os.urandom(size))
    trial.start()
    trial.wait_complete()
    trial.mimeo.stop()
    trial.delete()
    trial.arm()
    trial.wait_for_death()
    trial.start()
    trial.wait_nothing_left()


def test_deletions(cloud, files, witness):
    run(trials(cloud, files, "deletion"), loses_its_image_and_dies)


def is_registered_and_stopped(trial: Trial) -> None:
    trial.create(os.urandom(MiB))
    trial.start()
    trial.wait_complete()
    trial.mimeo.stop()


def finds_a_bad_copy_and_dies(trial: Trial) -> None:
    trial.config["scrub"] = {"period": "10s"}
    is_registered_and_stopped(trial)
    [bad] = trial.stores["file"].path.glob(f"{trial.image}*")
    bad.write_bytes(bytes(MiB))
    trial.arm()
    trial.wait_for_death()
    trial.start()
    eventually(lambda: not bad.exists(), 60, "the bad copy is gone")
    trial.wait_complete()


def is_told_of_a_store_and_dies(trial: Trial) -> None:
    """The word is given again, as whoever gave it had no answer."""
    is_registered_and_stopped(trial)
    left = trial.stores.pop("file")
    if trial.point == "drain-said":
        words = ("drain", "file")
        trial.config["enabled_stores"] = [*trial.stores, "file"]
        trial.config["stores.file"] = left.section
    elif trial.point == "rename-followed":
        words = ("stores", "rename", "file", "renamed")
        trial.stores["renamed"] = left
    else:
        words = ("stores", "move", "file")
        path = left.path.with_name(f"{left.path.name}-new")
        shutil.copytree(left.path, path)
        section = {**left.section, "path": str(path), "read_url": left.section["read_url"].rstrip("/") + "-new/"}
        trial.stores["file"] = Directory(section, path)
    trial.arm()
    # An image that is at work is not renamed at the first word.
    eventually(lambda: trial.mimeo.run(*words)[0] != 0 and not trial.mimeo.running(), 60, "nobody answers any more")
    trial.wait_for_death()
    trial.start()
    if trial.point == "rename-followed":
        # The only image has followed; its location keeps the former name.
        eventually(lambda: trial.mimeo.status(trial.image)["state"] == "registered", 60, "it is registered")
        assert {store for store, _ in trial.known("kept")} == set(trial.stores)
        return
    code, out, err = trial.mimeo.run(*words)
    assert code == 0, (code, out, err)
    if trial.point == "drain-said":
        eventually(lambda: not left.left(), 60, "the store is empty")
    trial.wait_complete()


def loses_its_ledger_and_dies(trial: Trial) -> None:
    """What a listing of the directory shows is entered, before anything else is looked at."""
    del trial.stores["nginx"], trial.stores["apache"]
    is_registered_and_stopped(trial)
    for file in trial.mimeo.ledger.parent.glob(f"{trial.mimeo.ledger.name}*"):
        file.unlink()
    trial.arm()
    trial.wait_for_death()
    trial.start()
    trial.wait_complete()


def is_backed_up_and_dies(trial: Trial) -> None:
    """The command dies, and is given again."""
    is_registered_and_stopped(trial)
    backup = str(trial.mimeo.ledger.with_suffix(".backup"))
    trial.mimeo.extra_env = {"MIMEO_CRASH": trial.point}
    codes = [trial.mimeo.run("ledger", word, backup)[0] for word in ("backup", "restore")]
    assert -signal.SIGKILL in codes, codes
    trial.mimeo.extra_env = {}
    if trial.point == "backup-copied":
        assert trial.mimeo.run("ledger", "backup", backup)[0] == 0
    assert trial.mimeo.run("ledger", "restore", backup)[0] == 0
    trial.start()
    trial.wait_complete()


def test_healing_words_and_ledgers(cloud, files):
    stories = {
        "bad copy": finds_a_bad_copy_and_dies, "word": is_told_of_a_store_and_dies,
        "lost ledger": loses_its_ledger_and_dies, "backup": is_backed_up_and_dies,
    }
    story = {point: story for group, story in stories.items() for point in POINTS[group]}
    run(trials(cloud, files, *stories), lambda trial: story[trial.point](trial))


def dies_with_a_large_image(trial: Trial, size: int) -> None:
    if trial.point != "kept-proven":
        return dies_and_completes(trial, size)
    trial.create(os.urandom(size))
    trial.start(store_defaults={"bandwidth": "12MiB/s"})
    part = trial.stores["file"]
    eventually(lambda: part.written(trial.image) > CHUNK + 2 * MiB, 60, "a chunk and more is there")
    eventually(trial.digests, 20, "and its digest in the ledger")
    trial.mimeo.kill()
    trial.arm()
    trial.wait_for_death()
    trial.start()
    trial.wait_complete()


def test_large_images(cloud, files):
    large = trials(cloud, files, "going on", "in ranges")
    for trial in large:
        if trial.point in POINTS["in ranges"]:
            del trial.stores["nginx"], trial.stores["file"]

    def story(trial: Trial) -> None:
        dies_with_a_large_image(trial, 3 * CHUNK if "file" in trial.stores else 130 * MiB)

    run(large, story)


def test_glances_own_copies(cloud):
    second = Directory({"type": "glance", "backend": "second"}, cloud.glance.stores["second"])
    asking = [Trial(point, cloud, {}) for point in POINTS["Glance's copy"]]
    for trial in asking:
        trial.stores |= {"nginx": web(cloud.nginx[0], trial.key), "second": second}
    run(asking, asks_and_dies)


def asks_and_dies(trial: Trial) -> None:
    trial.create(os.urandom(MiB))
    trial.arm()
    trial.wait_for_death()
    trial.start(scan={"interval": "2s"})
    eventually(lambda: trial.mimeo.status(trial.image)["state"] == "registered", 90, "it is registered everywhere")
    assert trial.stores["second"].read(trial.image) == trial.data
    [(_, name)] = trial.there()
    assert trial.known(None) == {("nginx", name)}
    assert trial.stores["nginx"].read(name) == trial.data


def takes_and_dies(trial: Trial) -> None:
    """The second store takes the copy that the first one has."""
    taker, place = trial.stores.popitem()
    trial.create(os.urandom(MiB))
    trial.start()
    trial.wait_complete()
    trial.mimeo.stop()
    trial.stores[taker] = place
    trial.arm()
    trial.wait_for_death()
    trial.start()
    trial.wait_complete()


def test_taking(cloud, files, places):
    takers = [Trial(point, cloud, {}) for point in POINTS["taking"]]
    for trial in takers:
        trial.stores |= {"file": in_files(files, trial.key), "rsync": places["rsync"]}
    run(takers, takes_and_dies)


SIZES = {"s3": 3 * CHUNK, "swift": 3 * CHUNK}  # three parts, three segments


def leaves_an_orphan_and_dies(trial: Trial) -> None:
    """A first death leaves an object that was closed, and of which nobody knows that; the second comes as it is removed."""
    trial.create(os.urandom(MiB))
    trial.arm("object-closed")
    trial.wait_for_death()
    [(store, orphan)] = trial.there()
    trial.arm()
    trial.wait_for_death()
    ceph = trial.stores[store].ceph
    # Else it were left alone for a quarter of an hour.
    eventually(lambda: not ceph.watchers(orphan), 30, "Ceph has forgotten the dead client")
    trial.start()
    trial.wait_complete()


def test_other_stores(cloud, places, witness):
    """Each store alone."""
    places["swift"].section["segment_size"] = "16MiB"
    # What a dead client had open counts as open for `osd_client_watch_timeout`; nothing is removed before.
    places["rbd"].section["timeout"] = "12s"
    story = {}
    for kind in ("s3", "swift", "sftp", "rsync", "rbd"):
        story |= {point: (kind, dies_and_completes) for point in POINTS[kind]}
        story |= {point: (kind, loses_its_image_and_dies) for point in POINTS.get(f"deletion at {kind}", [])}
        story |= {point: (kind, leaves_an_orphan_and_dies) for point in POINTS.get(f"orphan at {kind}", [])}

    def tell(trial: Trial) -> None:
        kind, its = story[trial.point]
        its(trial, SIZES[kind]) if kind in SIZES else its(trial)

    # Those first that take longest.
    run([Trial(point, cloud, {kind: places[kind]}) for point, (kind, _) in reversed(story.items())], tell)
