"""Each type of store by itself: one object written by Mimeo's adapter, and by the best plain client for that server.

Mimeo's side is `rate` (crates/adapters/examples), a process that does what a client's does: it starts, logs in, reads a
file in memory, writes, closes and ends. Everybody writes the same file to the same server, and reads it back.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from cloud.base import program
from cloud.ceph import OSD_SIZE
from cloud.keystone import SECRET
from cloud.nginx import Exporter
from cloud.rsyncd import Rsyncd
from cloud.sshd import Sshd
from cloud.storage import Storage
from mimeo import ROOT

from ..content import MIB, write
from ..lab import Lab
from ..processes import Usage, cpu_clock, run_at_once
from ..report import Report, Sample, Samples, compared
from ..watchdog import limit, patience, say

TITLE = "Clients: each type of store beside the best plain client for it"
RATE = Path(os.environ.get("MIMEO_RATE", ROOT / "target/release/examples/rate"))
MIMEO = "Mimeo"
GOAL = 0.9  # of the best client's rate
SEGMENT = 128 << 20  # Mimeo's default for Swift


@dataclass
class Client:
    """A program, with its command to upload, and to download to nowhere."""

    upload: list
    download: list


@dataclass
class Place:
    """A server that is written to, and by whom. `given` is what `rate` is told of the store."""

    kind: str
    given: list
    clients: dict[str, Client]
    sweep: Callable[[], None]  # removes what was written
    env: dict[str, str] = field(default_factory=dict)
    servers: list = field(default_factory=list)  # that are still at work when a client has ended
    verb: str = "write"  # how Mimeo comes by the file


def run(lab: Lab, options) -> Report:
    # The source, rsync's spool, and what lies there of it, beside Ceph's device.
    if not lab.has_room(4 * options.size + OSD_SIZE // MIB, "the comparison"):
        raise RuntimeError("not enough memory for this size: see --size")
    if not RATE.exists():
        raise RuntimeError(f"{RATE} is missing: run `cargo build --release --package mimeo-adapters --example rate`")
    # By a name that it could have in a `file` store.
    file = write(lab.scratch / "00000000-0000-4000-8000-00000000be4c.2", options.size)
    digest = blake3().update_mmap(file).hexdigest()
    samples = Samples()
    try:
        with places(lab, file) as found:
            for round_ in range(options.rounds):
                for place in found:
                    ours = Client([RATE, place.verb, file, *place.given], [RATE, "prove", digest, *place.given])
                    samples += measure(place, {MIMEO: ours, **place.clients}, options.size, round_)
    finally:
        file.unlink(missing_ok=True)
    return report(samples, options.size)


def measure(place: Place, clients: dict[str, Client], mib: int, round_: int) -> list[Sample]:
    """One after the other, every other round the other way about."""
    found = []
    for name, client in list(clients.items())[:: -1 if round_ % 2 else 1]:
        case = f"{place.kind}: {name}"
        with limit(patience(8 * mib), case):
            place.sweep()
            wrote = quietly(place, client.upload)
            read = quietly(place, client.download)
            place.sweep()
        say(f"clients, round {round_ + 1}: {case}: {wrote.seconds:.2f} s, read back in {read.seconds:.2f} s")
        more = {"read": read.seconds, "CPU to read": read.cpu}
        found.append(Sample(case, round_, mib, wrote.seconds, None, wrote.cpu, wrote.memory, None, more))
    return found


def quietly(place: Place, command: list) -> Usage:
    """Begins when the servers have done what the one before gave them to do: Ceph goes on for a while."""
    while True:
        before = [cpu_clock(server.process.pid) for server in place.servers]
        time.sleep(0.2)
        now = [cpu_clock(server.process.pid) for server in place.servers]
        if sum(now) - sum(before) < 0.02:
            return run_at_once(command, env={**plain_environment(), **place.env})


def plain_environment() -> dict[str, str]:
    """Without what would tell a client of another cloud, or change its ways."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "OS_", "RCLONE_", "SWIFT"))}


# -- the places --------------------------------------------------------------------------------------------------------


@contextmanager
def places(lab: Lab, file: Path) -> Iterator[list[Place]]:
    parent = lab.cloud.dir
    with ExitStack() as stack:
        storage = Storage(parent, lab.cloud.keystone)
        sshd, rsyncd = Sshd(parent), Rsyncd(parent)
        sshd.prepare()
        directory = parent / "files"
        directory.mkdir()
        exported = {"file": directory, "sftp": sshd.objects, "rsync": rsyncd.objects}
        shown = {kind: Exporter(parent, f"shows-{kind}", path) for kind, path in exported.items()}
        with limit(120, "the start of the servers"):
            for server in (storage, sshd, rsyncd, *shown.values()):
                server.start()
                stack.callback(server.stop)
        # All of it now, or what is written first would cost more than what is written over it.
        with (storage.ceph.osd.data / "block").open("r+b") as block:
            os.posix_fallocate(block.fileno(), 0, OSD_SIZE)
        yield [
            rbd(storage, file), s3(storage, file), swift(storage, file), sftp(sshd, shown["sftp"], file),
            *rsync(rsyncd, shown["rsync"], lab.scratch / "spool", file), files(directory, shown["file"], file),
            http(lab.cloud.nginx[0], file),
        ]


def rbd(storage: Storage, file: Path) -> Place:
    ceph = storage.ceph
    command, image = [program("rbd", "ceph-common"), "--conf", ceph.conf, "--id", "mimeo"], f"{ceph.pool}/client"
    # Objects as large as Glance and Mimeo make them.
    upload = [*command, "import", "--no-progress", "--object-size", "8M", file, image]
    client = Client(upload, [*command, "export", "--no-progress", image, "-"])
    return Place("rbd", ["rbd", ceph.conf, "mimeo", ceph.pool], {"rbd import": client}, ceph.remove_all,
                 servers=[ceph.osd])


def s3(storage: Storage, file: Path) -> Place:
    gateway = storage.gateway
    options = [
        "--s3-provider", "Ceph", "--s3-endpoint", gateway.url, "--s3-env-auth", "--s3-no-check-bucket",
        "--s3-chunk-size", "16M", "--s3-upload-concurrency", 4, "--s3-disable-checksum",
    ]
    env = {"AWS_ACCESS_KEY_ID": gateway.access_key, "AWS_SECRET_ACCESS_KEY": gateway.secret_key}
    # One request that is signed beforehand: over plain HTTP rclone hashes every part, to sign it.
    put, get = (
        gateway.s3().generate_presigned_url(method, {"Bucket": gateway.bucket, "Key": "client"}, ExpiresIn=86400)
        for method in ("put_object", "get_object")
    )
    clients = {
        "rclone": rclone("s3", gateway.bucket, options, file),
        "curl -T": Client(curl_upload(put, file), curl(get)),
    }
    return Place("s3", ["s3", gateway.url, gateway.bucket], clients, lambda: empty(storage), env,
                 [storage.ceph.osd, gateway])


def swift(storage: Storage, file: Path) -> Place:
    gateway, keystone = storage.gateway, storage.keystone
    env = {**keystone.os_env("mimeo"), "STORE_PASSWORD": SECRET}
    own = Path(sys.executable).with_name("swift")  # from e2e/requirements.txt, as Glance is
    upload = [own, "upload", "--segment-size", SEGMENT, "--object-name", "client", gateway.container, file]
    download = [own, "download", "--output", "/dev/null", gateway.container, "client"]
    clients = {
        "swift": Client(upload, download),
        "rclone": rclone("swift", gateway.container, ["--swift-env-auth", "--swift-chunk-size", f"{SEGMENT}B"], file),
    }
    given = ["swift", keystone.url, "mimeo", gateway.container, env["OS_PROJECT_NAME"]]
    return Place("swift", given, clients, lambda: empty(storage), env, [storage.ceph.osd, gateway])


def sftp(sshd: Sshd, shown: Exporter, file: Path) -> Place:
    batch = file.with_name("sftp.batch")
    batch.write_text(f"put {file} {sshd.objects}/client\n")
    options, get = sshd.with_key(), curl(f"{shown.url}client")
    clients = {
        "sftp": Client([program("sftp", "openssh-client"), *options, "-b", batch, sshd.host], get),
        # The old protocol: by default it is sftp's.
        "scp -O": Client([program("scp", "openssh-client"), "-O", *options, file, sshd.remote("client")], get),
    }
    given = ["sftp", sshd.host, sshd.port, sshd.user, sshd.objects, shown.url, sshd.known_hosts, sshd.key]
    return Place("sftp", given, clients, sshd.remove_all)


def rsync(rsyncd: Rsyncd, shown: Exporter, spool: Path, file: Path) -> list[Place]:
    """Through the spool, as a stream must be, for rsync sends files only; and from a `file` store's copy."""
    spool.mkdir(exist_ok=True)
    spooled, there, get = spool / "client", f"{rsyncd.url}client", curl(f"{shown.url}client")
    send = [program("rsync", "rsync"), f"--password-file={rsyncd.password_file}"]
    steps = ["cp", file, spooled], [*send, spooled, there], ["rm", spooled]
    by_spool = ["sh", "-ec", "; ".join(shlex.join(map(str, step)) for step in steps)]
    given, env = ["rsync", rsyncd.url, shown.url, spool], {"STORE_PASSWORD": rsyncd.password}
    return [
        Place(f"rsync, {how}", given, {name: Client(command, get)}, rsyncd.remove_all, env, verb=verb)
        for how, verb, name, command in (
            ("by the spool", "write", "cp, then rsync", by_spool),
            ("from a file store", "take", "rsync", [*send, file, there]),
        )
    ]


def files(directory: Path, shown: Exporter, file: Path) -> Place:
    client = Client(["cp", file, directory / "client"], curl(f"{shown.url}client"))
    return Place("file", ["file", directory, shown.url], {"cp": client}, lambda: unlink_all(directory))


def http(nginx, file: Path) -> Place:
    url = f"{nginx.url}client"
    client = Client(curl_upload(url, file), curl(url))
    return Place("http", ["http", nginx.url], {"curl -T": client}, lambda: unlink_all(nginx.objects))


def rclone(kind: str, container: str, options: list, file: Path) -> Client:
    there = f":{kind}:{container}/client"
    command = [program("rclone", "rclone"), "--config", "", "--quiet", *options]
    return Client([*command, "copyto", file, there], [*command, "cat", there])


def curl(url: str) -> list:
    return [program("curl", "curl"), "--silent", "--show-error", "--fail", url]


def curl_upload(url: str, file: Path) -> list:
    return [*curl(url), "--header", "Expect:", "--upload-file", file]


def empty(storage: Storage) -> None:
    """The gateway only notes what is deleted, and removes it later."""
    storage.gateway.remove_all()
    storage.ceph.run("radosgw-admin", "gc", "process", "--include-all", client="radosgw")


def unlink_all(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


# -- the report --------------------------------------------------------------------------------------------------------

NOTES = [
    "Rate ratio: the client's seconds to upload by Mimeo's to write and close, round by round; above 1, Mimeo is "
    "quicker. Mimeo is its adapter alone, in a process of its own: no download, no SHA-512, no ledger.",
    "Reading back: Mimeo hashes with BLAKE3 and compares (its proof), a client throws the bytes away. What lies in "
    "files is read over HTTP, by clients with curl.",
    "CPU and memory are those of the processes on the client's side, ssh and rsync among them. The servers run on the "
    "same cores: with rbd, s3 and swift Ceph takes most of the time, which hides differences between clients.",
    "rsync sends files only. By the spool, both write the image to a file first; from a file store's copy rsync "
    "sends it as it is. file: cp copies within the kernel.",
]


def report(samples: Samples, mib: int) -> Report:
    cases = samples.cases()
    rows, low, slower = [], [], []
    for kind in dict.fromkeys(case.partition(": ")[0] for case in cases):
        ours = f"{kind}: {MIMEO}"
        others = [case for case in cases if case.startswith(f"{kind}: ") and case != ours]
        best, *rest = sorted(others, key=lambda case: cases[case].series("seconds").median)
        ratio = compared(samples, "seconds", best, ours)
        rows.append({
            "store: client": best, "rate ratio": ratio.text(), "spread": ratio.spread(),
            **columns(cases[ours], "Mimeo"), **columns(cases[best], "client"),
        })
        slower += [f"{case} ({cases[case].series('seconds').text()} s)" for case in rest]
        if ratio.median < GOAL:
            low.append(f"{kind} ({ratio.text()})")
    shows = [
        f"Mimeo writes at {GOAL} of the best client's rate or more"
        + (f", but not with {', '.join(low)}." if low else " with all stores."),
        f"Clients that were slower than the one shown: {', '.join(slower)}.",
    ]
    return Report(f"{TITLE} ({mib} MiB)", rows, shows, NOTES, samples)


def columns(found: Samples, whose: str) -> dict[str, str]:
    usual = found.usual_row()
    return {
        f"{whose}: s": usual["seconds"], f"{whose}: CPU s/GiB": usual["CPU s/GiB"],
        f"{whose}: peak MiB": usual["peak memory MiB"], f"{whose}: s to read back": found.more("read").text(),
    }
