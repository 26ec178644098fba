"""The gateway: an upload to Glance and three stores beside one to Glance alone; many at once, for the memory; and small
calls, beside nginx as a proxy.

Both proxies stand in front of the same static server, so that Glance's own time does not hide theirs.
"""

import json
import resource
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import requests

from cloud.base import free_port, listens, program
from cloud.images import Images
from cloud.nginx import Nginx
from mimeo import Mimeo

from ..content import MIB, write
from ..lab import Lab
from ..processes import Watch
from ..report import Report, Sample, Samples, compared
from ..upload import put
from ..watchdog import limit, patience, say

TITLE = "Gateway: uploads to Glance and three stores, and small calls"
DIRECT = "PUT to Glance alone"
NONE, ALL = 'through the gateway, ack = "none"', 'through the gateway, ack = "all"'
AT_ONCE, IDLE = 8, 2000
CROWD = f"{AT_ONCE} uploads at once, beside {IDLE} idle connections"
BY_GATEWAY, BY_NGINX, STATIC = "small calls, gateway", "small calls, nginx as a proxy", "small calls, no proxy"
CONNECTIONS, SECONDS, SINGLE = 32, 5, 500


def run(lab: Lab, options) -> Report:
    if not lab.has_room(6 * options.size, "the comparison"):
        raise RuntimeError("not enough memory for this size: see --size")
    file = write(lab.scratch / "gateway.image", options.size)
    samples = Samples()
    try:
        for round_ in range(options.rounds):
            for case in (DIRECT, NONE, ALL):
                with limit(patience(6 * options.size), case):
                    samples.append(upload(lab, file, options.size, round_, case))
        samples += filter(None, [crowd(lab, options.middle_size)])
        samples += small_calls(lab, options.rounds)
    finally:
        file.unlink(missing_ok=True)
    return report(samples)


# -- uploads -----------------------------------------------------------------------------------------------------------


def upload(lab: Lab, file: Path, mib: int, round_: int, case: str) -> Sample:
    """Until the client is answered. With "none" the replicas follow, and are waited for before anything else begins."""
    images = lab.cloud.images
    image = images.record("gateway")
    if case == DIRECT:
        watch = Watch(lab.glance_processes())
        put(images, image, "file", mib, file)
        usage = watch.usage()
    else:
        with gateway(lab, "all" if case == ALL else "none") as (mimeo, through):
            watch = Watch([mimeo.process.pid])
            put(through, image, "file", mib, file)
            usage = watch.usage()
            lab.sight.wait_mimeo({image: set(mimeo.stores)})
            lab.sight.confirm_mimeo({image: set(mimeo.stores)})
            reads = lab.cloud.glance.bytes_sent(f"/v2/images/{image}/file") / (mib * MIB)
            assert reads == 0, f"Glance was read {reads} times"
    say(f"gateway, round {round_ + 1}: {case}: {usage.seconds:.2f} s")
    images.delete(image)
    return Sample(case, round_, mib, usage.seconds, None, usage.cpu, usage.memory, 0 if case != DIRECT else None)


@contextmanager
def gateway(lab: Lab, ack: str) -> Iterator[tuple[Mimeo, Images]]:
    """In front of Glance, with three stores; and the Images API by way of it."""
    port = free_port()
    section = {"listen": f"127.0.0.1:{port}", "upstream": [lab.cloud.glance.url], "ack": ack}
    with lab.mimeo(lab.cloud.nginx[:3], gateway=section) as mimeo:
        yield mimeo, Images(SimpleNamespace(url=f"http://127.0.0.1:{port}"), lab.cloud.keystone)


def crowd(lab: Lab, mib: int) -> Sample | None:
    """What memory they all take. Half of those that do nothing have begun a request."""
    if not lab.has_room(5 * AT_ONCE * mib, CROWD):
        return None
    images, file = [lab.cloud.images.record(f"crowd-{n}") for n in range(AT_ONCE)], write(lab.scratch / "crowd.image", mib)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with limit(patience(6 * AT_ONCE * mib), CROWD), gateway(lab, "all") as (mimeo, through), ExitStack() as idle:
        address = ("127.0.0.1", int(through.glance.url.rpartition(":")[2]))
        for number in range(IDLE):
            connection = idle.enter_context(socket.create_connection(address))
            if number % 2:
                connection.sendall(b"GET /v2/images HTTP/1.1\r\nHost: glance")
        watch = Watch([mimeo.process.pid])
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda image: put(through, image, "file", mib, file), images))
        usage = watch.usage()
    file.unlink()
    for image in images:
        lab.cloud.images.delete(image)
    say(f"gateway: {CROWD}: peak {usage.memory / MIB:.1f} MiB")
    return Sample(CROWD, 0, AT_ONCE * mib, usage.seconds, None, usage.cpu, usage.memory, 0)


# -- small calls -------------------------------------------------------------------------------------------------------


class Proxy(Nginx):
    """A static answer, and a proxy in front of it as nginx's documentation has it for connections that are kept."""

    def __init__(self, parent: Path):
        self.static = free_port()
        super().__init__(parent, "proxy")

    def _conf(self) -> str:
        before, server, after = super()._conf().partition("    server {")
        answer = json.dumps({"images": [], "schema": "/v2/schemas/images", "first": "/v2/images"})
        return before.replace("access_log " + str(self.access_log) + " short;", "access_log off;") + f"""
    keepalive_requests 1000000;
    upstream static {{ server 127.0.0.1:{self.static}; keepalive {CONNECTIONS}; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{self.static};
        location / {{ default_type application/json; return 200 '{answer}'; }}
    }}
    server {{
        listen 127.0.0.1:{self.port};
        location / {{
            proxy_pass http://static;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""

    def ready(self):
        return listens(self.port) and listens(self.static)


def small_calls(lab: Lab, rounds: int) -> Iterator[Sample]:
    with proxies(lab) as cases:
        for round_ in range(rounds):
            for case, port in cases.items():
                single, many = median_call(port), calls_per_second(port)
                say(f"gateway, round {round_ + 1}: {case}: {single * 1e3:.2f} ms, {many:.0f} calls/s")
                yield Sample(case, round_, 0, single, more={"calls/s": many})


@contextmanager
def proxies(lab: Lab) -> Iterator[dict[str, int]]:
    server = Proxy(lab.scratch)
    server.start()
    port = free_port()
    section = {"listen": f"127.0.0.1:{port}", "upstream": [f"http://127.0.0.1:{server.static}"]}
    try:
        with lab.mimeo(lab.cloud.nginx[:3], gateway=section):
            yield {STATIC: server.static, BY_NGINX: server.port, BY_GATEWAY: port}
    finally:
        server.stop()


def median_call(port: int) -> float:
    """One connection, one call after the other."""
    url, times = f"http://127.0.0.1:{port}/v2/images?limit=1", []
    with requests.Session() as session:
        for _ in range(SINGLE):
            begun = time.perf_counter()
            assert session.get(url, timeout=10).ok
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def calls_per_second(port: int) -> float:
    command = [
        program("wrk", "wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", f"http://127.0.0.1:{port}/v2/images?limit=1",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in told and "Socket errors" not in told, told
    return float(next(line.split()[1] for line in told.splitlines() if line.startswith("Requests/sec:")))


def report(samples: Samples) -> Report:
    cases, rows = samples.cases(), []
    for case, found in cases.items():
        calls = found.more("calls/s")
        base = STATIC if calls.values else DIRECT
        memory = [value for value in found.series("memory").values if value]
        rows.append({
            "": case,
            "seconds": found.series("seconds").text(4 if calls.values else 2),
            f"× {DIRECT}": compared(samples, "seconds", case, base).full() if case in (DIRECT, NONE, ALL) else "–",
            "peak memory MiB": f"{max(memory) / MIB:.1f}" if memory else "–",
            "calls/s": calls.text(0),
        })
    gateway, nginx = cases[BY_GATEWAY], cases[BY_NGINX]
    rates = [one / other for one, other in zip(gateway.more("calls/s").values, nginx.more("calls/s").values, strict=True)]
    added = [one - other for one, other in zip(gateway.series("seconds").values, cases[STATIC].series("seconds").values, strict=True)]
    shows = [
        f"An upload through the gateway takes {compared(samples, 'seconds', NONE, DIRECT).full()} × that to Glance alone "
        f'with `ack = "none"`, and {compared(samples, "seconds", ALL, DIRECT).full()} × with `"all"`, three proven and '
        "registered replicas included.",
        f"It adds {statistics.median(added) * 1e3:.2f} ms to a small call, at the median, and serves "
        f"{statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f}) × the calls per second of nginx.",
    ]
    if CROWD in cases:
        peak, bound = cases[CROWD].series("memory").values[0] / MIB, 64 + 2 * AT_ONCE
        shows.append(f"{CROWD}: {peak:.1f} MiB of memory at the peak (the bound is {bound}).")
    notes = ["Memory is Mimeo's own; for the direct PUT it is Glance's."]
    return Report(TITLE, rows, shows, notes, samples)
