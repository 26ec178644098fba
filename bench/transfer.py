"""What it costs to bring an image to N stores, beside the floor, measured in one run against the real cloud.

The floor is the slower of two things that nobody can do without: hashing the image once with its own algorithm
(openssl, one core), and N plain uploads of the bytes at once (curl). Rounds are interleaved: each takes every case once,
and its floor right before it. Quoted are medians, and the spread of the ratio from its least to its greatest.

Besides time: the bytes that Glance sent of the image (one read, however many stores), the bytes that Mimeo wrote to the
disk (no staging: the ledger only), and its peak resident memory (flat, whatever the size).
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cloud import Cloud
from cloud.base import eventually
from mimeo import ROOT, Mimeo

MIB = 1 << 20


@dataclass
class Case:
    size: int  # MiB
    stores: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    source: list[float] = field(default_factory=list)
    written: list[int] = field(default_factory=list)

    def row(self) -> dict:
        return {
            "image MiB": self.size,
            "stores": self.stores,
            "seconds": round(statistics.median(self.seconds), 2),
            "ratio to floor": round(statistics.median(self.ratios), 2),
            "spread": f"{min(self.ratios):.2f} to {max(self.ratios):.2f}",
            "CPU s/GiB": round(statistics.median(self.cpu), 2),
            "peak RSS MiB": round(max(self.memory) / MIB, 1),
            "source reads": round(statistics.median(self.source), 3),
            "disk written MiB": round(max(self.written) / MIB, 2),
        }


def floor(file: Path, cloud: Cloud, stores: int) -> float:
    begun = time.monotonic()
    subprocess.run(["openssl", "dgst", "-sha512", file], check=True, stdout=subprocess.DEVNULL)
    hashed = time.monotonic() - begun
    servers = cloud.web[:stores]
    begun = time.monotonic()
    uploads = [subprocess.Popen(["curl", "-sf", "-o", "/dev/null", "-T", file, f"{server.url}floor"]) for server in servers]
    assert all(upload.wait() == 0 for upload in uploads)
    uploaded = time.monotonic() - begun
    for server in servers:
        (server.objects / "floor").unlink()
    return max(hashed, uploaded)


def measure(case: Case, file: Path, cloud: Cloud, round_: int) -> None:
    least = floor(file, cloud, case.stores)
    # On the disk, and with its temporary files there: what it stages, if it does, is counted.
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache", prefix="bench-") as directory:
        os.environ["TMPDIR"] = directory
        mimeo = Mimeo(Path(directory), cloud)
        mimeo.use(*cloud.web[: case.stores])
        mimeo.serve(scan={"interval": "1h"}, store_defaults={"type": "http", "timeout": "60s"})
        process = psutil.Process(mimeo.process.pid)
        before = process.cpu_times()
        with file.open("rb") as data:
            image = cloud.images.create(data, f"bench-{case.size}-{case.stores}-{round_}")
        begun = time.monotonic()
        wanted = {f"http{n}" for n in range(1, case.stores + 1)}
        eventually(lambda: set(cloud.images.mimeo_locations(image)) >= wanted, 600, "all are registered", pause=0.02)
        seconds = time.monotonic() - begun
        after = process.cpu_times()
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
        case.seconds.append(seconds)
        case.ratios.append(seconds / least)
        case.cpu.append((after.user + after.system - before.user - before.system) * 1024 / case.size)
        case.memory.append(peak)
        case.source.append(cloud.glance.bytes_sent(f"/v2/images/{image}/file") / (case.size * MIB))
        case.written.append(process.io_counters().write_bytes)
        mimeo.discard()
    cloud.images.delete(image)
    for server in cloud.web:
        for path in server.objects.iterdir():
            path.unlink()


def table(rows: list[dict]) -> str:
    heads = list(rows[0])
    lines = [heads, ["---:"] * len(heads), *[[str(row[head]) for head in heads] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 64, 1024], help="image sizes in MiB")
    parser.add_argument("--stores", type=int, nargs="+", default=[1, 3, 4], help="how many stores, at most 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    cases = [Case(size, stores) for size in options.sizes for stores in options.stores]
    cloud = Cloud()
    try:
        cloud.start()
        cloud.reset()
        for size in options.sizes:
            with (cloud.dir / f"{size}.bits").open("wb") as bits:
                for _ in range(size):
                    bits.write(os.urandom(MIB))
        for round_ in range(options.rounds):
            for case in cases:
                measure(case, cloud.dir / f"{case.size}.bits", cloud, round_)
    finally:
        cloud.stop()
    rows = [case.row() for case in cases]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
