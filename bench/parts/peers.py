"""One image, three places: Mimeo beside what else can bring it there, and beside the floor."""

from collections.abc import Callable
from pathlib import Path

from ..content import MIB, write
from ..floor import floor, upload_at_once
from ..lab import Lab
from ..processes import Usage, Watch, run_at_once
from ..report import Report, Sample, Samples, compared
from ..upload import create, put
from ..watchdog import limit, patience, say

TITLE = "Peers: one image to three places"
HASH, CURL = "SHA-512 once, openssl", "curl × 3, nginx"
MIMEO, PUT = "Mimeo: event to three proven, registered replicas", "Glance: PUT to one file store"
SERIAL, PARALLEL = "Glance: import to three, serial", "Glance: import to three, parallel"
COPY = "Glance: copy-image to two more"
RCLONE, CURL_DAV = "rclone × 3, WebDAV (Apache)", "curl × 3, WebDAV (Apache)"


def run(lab: Lab, options) -> Report:
    # The import has most copies at once: the file, the staged one, three stores; others have no more.
    if not lab.has_room(6 * options.size, "the comparison"):
        raise RuntimeError("not enough memory for this size: see --size")
    file = write(lab.scratch / "peers.image", options.size)
    samples = Samples()
    try:
        for server in lab.webdav:
            server.start()
        for round_ in range(options.rounds):
            for case, step in CASES.items():
                with limit(patience(6 * options.size), case):
                    samples += measure(lab, file, options.size, round_, case, step)
    finally:
        file.unlink(missing_ok=True)
    return report(samples)


def measure(lab: Lab, file: Path, mib: int, round_: int, case: str, step: Callable) -> list[Sample]:
    """One case, with the floor right before it. Mimeo's floor gives the floor's own rows."""
    prepare(lab, case)
    least = floor([file], lab.cloud.nginx[:3])
    usage, more = step(lab, file, mib)
    say(f"peers, round {round_ + 1}: {case}: {usage.seconds:.2f} s, floor {least.seconds:.2f} s")
    found = [sample(case, round_, mib, usage, least.seconds, more)]
    if case == MIMEO:
        found.insert(0, sample(CURL, round_, mib, least.uploads, least.seconds, {}))
        found.insert(0, sample(HASH, round_, mib, least.hashing, least.seconds, {}))
    return found


def sample(case: str, round_: int, mib: int, usage: Usage, least: float, more: dict) -> Sample:
    reads = more.pop("source reads", usage.read / (mib * MIB))
    return Sample(case, round_, mib, usage.seconds, least, usage.cpu, usage.memory, reads, more)


def prepare(lab: Lab, case: str) -> None:
    """Not measured: Glance's restart, when it needs another option."""
    lab.set_parallel_stores(1 if case == SERIAL else 3)


def mimeo(lab: Lab, file: Path, mib: int) -> tuple[Usage, dict]:
    with lab.mimeo(lab.cloud.nginx[:3]) as program:
        watch = Watch([program.process.pid])
        image = create(lab.cloud.images, "peers", mib, file)
        wanted = {image: set(program.stores)}
        others = Watch(lab.glance_processes())
        watch.begin()
        lab.sight.wait_mimeo(wanted)
        usage = watch.usage()
        served = others.usage().cpu
        lab.sight.confirm_mimeo(wanted)
        reads = lab.source_reads(image, mib)
    lab.cloud.images.delete(image)
    return usage, {"source reads": reads, "Glance CPU s/GiB": served * 1024 / mib}


def glance_put(lab: Lab, file: Path, mib: int) -> tuple[Usage, dict]:
    image = lab.cloud.images.record("peers")
    watch = Watch(lab.glance_processes())
    put(lab.cloud.images, image, "file", mib, file)
    usage = watch.usage()
    lab.cloud.images.delete(image)
    return usage, {}


def glance_import(lab: Lab, file: Path, mib: int) -> tuple[Usage, dict]:
    stores = set(lab.cloud.glance.stores)
    image = lab.cloud.images.record("peers")
    watch = Watch(lab.glance_processes())
    put(lab.cloud.images, image, "stage", mib, file)
    staging = watch.usage().seconds
    lab.cloud.images.start_import(image, {"name": "glance-direct"}, sorted(stores))
    lab.sight.wait(lambda: lab.sight.glance_stores(image) == stores)
    usage = watch.usage()
    remove(lab, image)
    return usage, {"staging": staging}


def glance_copy(lab: Lab, file: Path, mib: int) -> tuple[Usage, dict]:
    stores = set(lab.cloud.glance.stores)
    image = create(lab.cloud.images, "peers", mib, file)
    watch = Watch(lab.glance_processes())
    lab.cloud.images.start_import(image, {"name": "copy-image"}, sorted(stores - {"main"}))
    lab.sight.wait(lambda: lab.sight.glance_stores(image) == stores)
    usage = watch.usage()
    remove(lab, image)
    return usage, {}


def remove(lab: Lab, image: str) -> None:
    lab.sight.wait(lambda: not lab.sight.importing(image))
    lab.cloud.images.delete(image)


def rclone(lab: Lab, file: Path, mib: int) -> tuple[Usage, dict]:
    usage = run_at_once(*[
        ["rclone", "--config", "", "--quiet", "--webdav-url", server.url, "--webdav-vendor", "other",
         "copyto", file, ":webdav:copy"]
        for server in lab.webdav
    ])
    lab.sweep()
    return usage, {}


def curl_webdav(lab: Lab, file: Path, mib: int) -> tuple[Usage, dict]:
    usage = upload_at_once([file], lab.webdav)
    lab.sweep()
    return usage, {}


CASES = {
    MIMEO: mimeo, PUT: glance_put, RCLONE: rclone, CURL_DAV: curl_webdav, COPY: glance_copy,
    PARALLEL: glance_import, SERIAL: glance_import,
}


def report(samples: Samples) -> Report:
    rows = []
    for case, found in samples.cases().items():
        row = {"": f"**{case}**" if case == MIMEO else case, **found.usual_row()}
        staging = found.more("staging")
        if staging.values:
            row["seconds"] += f" ({staging.text()} of it staging)"
        rows.append(row)
    mimeos = samples.cases()[MIMEO]
    shows = [
        f"Mimeo takes {mimeos.series('ratio').full()} × the floor.",
        *[
            f"Mimeo takes {compared(samples, 'seconds', MIMEO, other).full(3)} × the time of *{other}*."
            for other in (PARALLEL, SERIAL, COPY, RCLONE)
        ],
        f"Mimeo's CPU is {compared(samples, 'cpu', MIMEO, PARALLEL).full(3)} × that of *{PARALLEL}*, and "
        f"{compared(samples, 'cpu', MIMEO, RCLONE).full()} × that of *{RCLONE}*. Besides, Glance spends "
        f"{mimeos.more('Glance CPU s/GiB').full()} CPU s/GiB on serving Mimeo: one read, and the locations.",
    ]
    notes = [
        "CPU and memory are those of the tool's own processes, all of them (for Glance: of uwsgi; memory is the sum of "
        "their peaks), not those of the servers at the other end.",
        "Source reads, in images: for Mimeo, what Glance sent; for the others, all that their processes read, a "
        "staged copy and an upload's own bytes among it. Mimeo also reads back every copy from its store.",
        "Neither rclone nor curl proves or registers anything; Glance proves nothing of what it wrote.",
    ]
    return Report(TITLE, rows, shows, notes, samples)
