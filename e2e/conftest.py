"""One cloud for the whole run, brought back to its usual state before each test; one Mimeo per test."""

import atexit
import os
import random
import signal
from pathlib import Path

import pytest

from clients import Clients
from cloud import Cloud
from cloud.base import kill_all, tail
from cloud.fault import FaultyStore
from mimeo import ROOT, Mimeo

LOGS = ROOT / ".cache/e2e-logs"


def pytest_configure():
    atexit.register(kill_all)
    # A test run that is told to end must not leave a cloud behind.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.session.stash[_failed] = True
        mimeo = item.funcargs.get("mimeo") if hasattr(item, "funcargs") else None
        if mimeo is not None:
            report.sections.append(("mimeo's log, its end", tail(mimeo.log, 80)))
    return report


_failed = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def _cloud(request):
    cloud = Cloud()
    try:
        cloud.start()
        yield cloud
    finally:
        if request.session.stash.get(_failed, False):
            cloud.save_logs(LOGS)
        cloud.stop()


@pytest.fixture
def cloud(_cloud) -> Cloud:
    _cloud.reset()
    return _cloud


@pytest.fixture
def images(cloud):
    return cloud.images


@pytest.fixture
def clients(cloud) -> Clients:
    return Clients(cloud.keystone)


@pytest.fixture
def mimeo(cloud, request):
    """Configured with the three nginx servers and not yet started."""
    directory = cloud.dir / "runs" / request.node.name.translate(str.maketrans("[]/ ", "----"))[:80]
    directory.mkdir(parents=True)
    program = Mimeo(directory, cloud)
    yield program
    program.discard()


@pytest.fixture
def faulty(cloud):
    """A function that makes a faulty store; each has a port that Glance may read from."""
    made: list[FaultyStore] = []

    def make() -> FaultyStore:
        number = len(made)
        store = FaultyStore(cloud.dir / "runs" / f"faulty-{os.urandom(4).hex()}", cloud.fault_ports[number])
        made.append(store)
        return store

    yield make
    for store in made:
        store.stop()


@pytest.fixture
def dice() -> random.Random:
    """Randomness that can be had again: `MIMEO_SEED` of a failed run repeats its choices."""
    seed = int(os.environ.get("MIMEO_SEED", random.randrange(2**32)))
    print(f"MIMEO_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def file_of(tmp_path):
    """A function that makes a file with given bytes for a client to upload."""

    def make(data: bytes, name: str = "image.raw") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make
