"""Whether the cost of an image grows with the number of images: many small ones, a tenth of them at a time.

A real Glance would be the slow part, and its own growth would be measured. So this runs `mimeo demo`: one process with
the engine and the ledger of `serve`, and an embedded image service and three embedded stores, whose CPU is counted with
it. Each tenth is created, and waited for, before the next one begins: the engine is busy, and the backlog bounded.
"""

import http.client
import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cloud.base import Server, tail
from cloud.images import STORE_KEY
from mimeo import BINARY

from ..content import MIB
from ..lab import Lab
from ..processes import Watch
from ..report import Report, Sample, Samples
from ..watchdog import limit, say

TITLE = "Small: many images of 64 KiB"
BITS = os.urandom(65536)
STORES = 3
WARM = 100  # images before the first that count: connections and buffers come into being
CONNECTIONS = 4
PAUSE = 0.05


class Demo(Server):
    name = "demo"
    stop_signal = signal.SIGINT

    def command(self):
        return [BINARY, "demo", "--size", "64KiB"]

    def env(self):
        own = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "MIMEO_"))}
        return {**own, "TMPDIR": str(self.dir), "HOME": str(self.dir)}

    def ready(self):
        """When it has told what to try next."""
        return "Ctrl-C" in self.log.read_text()

    @property
    def port(self) -> int:
        return int(re.search(r"image service\s+http://127\.0\.0\.1:(\d+)", self.log.read_text()).group(1))


class Client:
    """One connection to the Images API, kept open."""

    def __init__(self, port: int):
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        self._http.request(method, path, body=body, headers={"Content-Type": kind})
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return text

    def create(self, name: str) -> str:
        wish = json.dumps({"name": name, "disk_format": "raw", "container_format": "bare"}).encode()
        image = json.loads(self.call("POST", "/v2/images", wish))["id"]
        self.call("PUT", f"/v2/images/{image}/file", BITS, "application/octet-stream")
        return image

    def registered(self, image: str) -> int:
        """On how many stores."""
        locations = json.loads(self.call("GET", f"/v2/images/{image}"))["locations"]
        return sum(STORE_KEY in location["metadata"] for location in locations)


def run(lab: Lab, options) -> Report:
    if not lab.has_room(options.images * len(BITS) * (STORES + 1) // MIB, f"{options.images} images"):
        raise RuntimeError("not enough memory for so many: see --images")
    demo = Demo(lab.scratch)
    batch = max(options.images // 10, 1)
    samples = Samples()
    try:
        demo.start()
        clients = [Client(demo.port) for _ in range(CONNECTIONS)]
        with limit(120, "the warm-up"):
            replicate(clients, min(WARM, batch))
        for number in range(options.images // batch):
            with limit(120 + batch, f"images {number * batch + 1} and following"):
                watch = Watch([demo.process.pid])
                replicate(clients, batch)
                usage = watch.usage()
            mib = batch * len(BITS) / MIB
            samples.append(Sample(f"{number + 1}", 0, mib, usage.seconds, None, usage.cpu, usage.memory,
                                  more={"images": batch}))
            say(f"small, {(number + 1) * batch} images: {1000 * usage.cpu / batch:.2f} CPU ms per image")
    except Exception as error:
        error.add_note(f"--- the end of the demo's output ---\n{tail(demo.log)}")
        raise
    finally:
        demo.stop()
    return report(samples, batch)


def replicate(clients: list[Client], count: int) -> None:
    """Creates so many images, over all connections, and waits until all are registered everywhere. Each is asked for
    about once: those that came first are done first."""
    shares = [range(n, count, len(clients)) for n in range(len(clients))]

    def create(client: Client, share: range) -> list[str]:
        return [client.create(f"small-{number}") for number in share]

    with ThreadPoolExecutor(len(clients)) as pool:
        made = [image for images in pool.map(create, clients, shares) for image in images]
    for image in made:
        while clients[0].registered(image) < STORES:
            time.sleep(PAUSE)


def report(samples: Samples, batch: int) -> Report:
    rows = [
        {
            "images": f"{number * batch + 1} to {(number + 1) * batch}",
            "CPU ms per image": f"{1000 * sample.cpu / batch:.2f}",
            "wall ms per image": f"{1000 * sample.seconds / batch:.2f}",
            "peak memory MiB": f"{sample.memory / MIB:.1f}",
        }
        for number, sample in enumerate(samples)
    ]
    first, last = samples[0], samples[-1]
    shows = [
        f"The last {batch} images cost {last.cpu / first.cpu:.2f} × the CPU of the first {batch}, and "
        f"{last.seconds / first.seconds:.2f} × the time; beside the median tenth, "
        f"{last.cpu / samples.series('cpu').median:.2f} × the CPU, and "
        f"{last.seconds / samples.series('seconds').median:.2f} × the time.",
    ]
    if len(samples) >= 6:
        early, late = (Samples(some).series("cpu").median for some in (samples[:3], samples[-3:]))
        shows.append(f"By medians, the last three tenths cost {late / early:.2f} × the CPU of the first three.")
    notes = ["CPU and memory are of the whole process: the engine, the image service, and three stores."]
    return Report(TITLE, rows, shows, notes, samples)
