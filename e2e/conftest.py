"""One cloud for the whole run, brought back to its usual state before each test; one Mimeo per test. Ceph is
started only for the tests that want it."""

import atexit
import os
import random
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from clients import Clients
from cloud import Cloud
from cloud.base import eventually, free_port, kill_all, run, tail
from cloud.fault import FaultyStore
from cloud.images import Images
from cloud.nginx import Exporter
from cloud.rsyncd import Rsyncd
from cloud.seaweedfs import SeaweedFS
from cloud.sshd import Agent, Sshd
from cloud.storage import Storage
from mimeo import ROOT, Mimeo
from places import Place, of_every_kind

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
LOGS = ROOT / ".cache/e2e-logs" / WORKER


def pytest_configure():
    atexit.register(kill_all)
    # A test run that is told to end must not leave a cloud behind.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


def pytest_collection_modifyitems(items):
    """A file's tests with `storage` come last: each change between a Glance with those stores and one without is a
    restart."""
    files = list(dict.fromkeys(item.path for item in items))
    items.sort(key=lambda item: (files.index(item.path), "storage" in item.fixturenames))


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


@pytest.fixture(scope="session")
def _storage(_cloud):
    """Takes its time to start, so it is there only for the tests that ask for it."""
    storage = Storage(_cloud.dir, _cloud.keystone)
    try:
        storage.start()
        yield storage
    finally:
        storage.stop()


@pytest.fixture
def cloud(_cloud, request) -> Cloud:
    """A test that asks for `storage` too has a Glance with those stores."""
    with_storage = "storage" in request.fixturenames
    _cloud.reset(request.getfixturevalue("_storage").glance if with_storage else None)
    return _cloud


@pytest.fixture
def storage(_storage, cloud) -> Storage:
    """Ceph and its gateway, empty."""
    _storage.remove_all()
    yield _storage
    # A Glance without these stores could not delete what has locations there.
    cloud.images.delete_all()


@pytest.fixture
def pools(storage):
    """Removes what pools a test makes."""
    before = storage.ceph.pools()
    yield
    for pool in storage.ceph.pools() - before:
        storage.ceph.remove_pool(pool)


def _of_its_own(request, kind, *arguments):
    """A server for one test, in a directory of its own."""
    parent = request.getfixturevalue("cloud").dir / "runs" / f"peer-{os.urandom(4).hex()}"
    server = kind(parent, *arguments)
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def sshd(request):
    yield from _of_its_own(request, Sshd)


@pytest.fixture
def ssh_agent(request, sshd):
    yield from _of_its_own(request, Agent, sshd)


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """A CA, a server's certificate for 127.0.0.1 and a client's, each with its key."""
    directory = tmp_path_factory.mktemp("pki")

    def openssl(*arguments) -> None:
        run(["/usr/bin/openssl", *arguments])

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "other-ca"):
        openssl(*new, "-x509", "-days", "2", "-subj", f"/CN={name}", "-keyout", directory / f"{name}.key",
                "-out", directory / f"{name}.pem")
    for name, signer in (("server", "ca"), ("client", "ca"), ("stranger", "other-ca")):
        (directory / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(*new, "-subj", f"/CN={name}", "-keyout", directory / f"{name}.key", "-out", directory / "csr")
        openssl("x509", "-req", "-in", directory / "csr", "-CA", directory / f"{signer}.pem",
                "-CAkey", directory / f"{signer}.key", "-CAcreateserial", "-days", "2",
                "-extfile", directory / "names", "-out", directory / f"{name}.pem")
    return directory


@pytest.fixture
def rsyncd(request):
    yield from _of_its_own(request, Rsyncd)


@pytest.fixture
def seaweedfs(request, pki):
    yield from _of_its_own(request, SeaweedFS, pki)


@pytest.fixture
def exported(cloud):
    """A function that starts a web server that shows a directory; each has a port that Glance may read from."""
    made: list[Exporter] = []

    def show(directory: Path) -> Exporter:
        # `faulty` takes the ports from the other end.
        port = cloud.fault_ports[-1 - len(made)]
        server = Exporter(cloud.dir / "runs" / f"exporter-{os.urandom(4).hex()}", "nginx", directory, port)
        made.append(server)
        server.start()
        # Whoever had the port before may still answer there for a moment.
        probe = directory / f"shown-{os.urandom(4).hex()}"
        probe.write_text("yes")
        eventually(lambda: requests.get(server.url + probe.name, timeout=5).ok, 30, f"{server.name} shows its directory")
        probe.unlink()
        return server

    yield show
    for server in made:
        server.stop()


@pytest.fixture
def places(cloud, storage, sshd, rsyncd, exported) -> dict[str, Place]:
    """A store of every kind, by its kind's name, all empty."""
    return of_every_kind(cloud, storage, sshd, rsyncd, exported)


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
def gateway(cloud, mimeo):
    """A function that starts Mimeo with a gateway in front of glance-api, and gives the gateway's address."""

    def start(*arguments, gateway=None, **changes) -> str:
        port = free_port()
        options = {"listen": f"127.0.0.1:{port}", "upstream": [cloud.glance.url], "stop_timeout": "5s"}
        mimeo.serve(*arguments, gateway={**options, **(gateway or {})}, **changes)
        return f"http://127.0.0.1:{port}"

    return start


@pytest.fixture
def through(cloud):
    """The Images API, by way of an address."""
    return lambda url: Images(SimpleNamespace(url=url), cloud.keystone)


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
def open_path(tmp_path):
    """A directory of the test that a web server's own user gets to as well."""
    for place in (tmp_path, *tmp_path.parents):
        if place == Path(tempfile.gettempdir()):
            break
        place.chmod(0o755)
    return tmp_path


@pytest.fixture
def file_of(tmp_path):
    """A function that makes a file with given bytes for a client to upload."""

    def make(data: bytes, name: str = "image.raw") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make
