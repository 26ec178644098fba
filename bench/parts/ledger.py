"""What people wait for with a large ledger: `mimeo status`, and the pages that a dashboard asks for."""

import json
import shutil
import sqlite3
import subprocess
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import requests

from cloud.base import Server, eventually, free_port, listens
from mimeo import BINARY

from ..lab import Lab
from ..report import Report, Sample, Samples, compared
from ..watchdog import limit, say

TITLE = "Ledger: what people ask, with very many images at ten stores"
SMALL, STORES = 100, 10
WARM = 2  # questions before those that count
NOW = 1_790_000_000_000
QUESTIONS = {
    "dashboard: first page": "/",
    "dashboard: search": "/?q=99999",
    "API: overview": "/v1/overview",
    "API: first page": "/v1/images?limit=100",
    "API: failed at one store": "/v1/images?store=s3&replica=failed",
    "API: degraded": "/v1/images?state=degraded",
    "API: name contains": "/v1/images?name=99999",
    "API: no such owner": "/v1/images?owner=nobody",
    "API: of a rare rule": "/v1/images?rule=rare",
    "API: last page": "/v1/images?limit=100&after=ffffff00-0000-4000-8000-000000000000",
    "API: stores": "/v1/stores",
}
COMMANDS = {"mimeo status": ["status"], "mimeo stores": ["stores"]}


class Serve(Server):
    """Without a cloud: what it is asked comes from the ledger alone."""

    name = "mimeo"
    start_timeout = 300.0

    def __init__(self, directory: Path):
        super().__init__(directory)
        self.port, self.ledger, self.file = free_port(), self.dir / "mimeo.db", self.dir / "mimeo.toml"
        names = [f"s{n}" for n in range(STORES)]
        sections = "".join(f'[stores.{name}]\nurl = "http://127.0.0.1:9/{name}/"\n' for name in names)
        self.file.write_text(
            f'enabled_stores = {json.dumps(names)}\nobserve = true\n{sections}'
            '[openstack]\nauth_type = "none"\nendpoint = "http://127.0.0.1:9"\n'
            f'[api]\nlisten = "127.0.0.1:{self.port}"\n'
            '[[rules]]\nname = "everywhere"\n[[rules]]\nname = "rare"\nwhen = "false"\n'
        )

    def command(self):
        return [BINARY, "--config", self.file, "serve"]

    def ready(self):
        return listens(self.port)

    def browser(self) -> requests.Session:
        """Signed in at the dashboard, and with the token for the API."""
        session, page = requests.Session(), f"http://127.0.0.1:{self.port}/sign-in"
        token = (self.dir / "mimeo.token").read_text().strip()
        session.get(page, timeout=120).raise_for_status()
        form = {"csrf": session.cookies["mimeo_sign_in"], "token": token}
        answer = session.post(page, data=form, timeout=120)
        assert answer.ok and answer.url != page, answer.text
        session.headers["Authorization"] = f"Bearer {token}"
        return session

    def ask(self, browser: requests.Session, path: str) -> float:
        begun = time.monotonic()
        answer = browser.get(f"http://127.0.0.1:{self.port}{path}", allow_redirects=False, timeout=120)
        assert answer.status_code == 200, f"{path}: {answer}"
        return time.monotonic() - begun

    def run(self, command: list[str]) -> float:
        begun = time.monotonic()
        subprocess.run([BINARY, "--config", self.file, *command], check=True, capture_output=True, timeout=120)
        return time.monotonic() - begun


@contextmanager
def serving(parent: Path, images: int):
    server = Serve(parent)
    try:
        server.start()  # makes the ledger
        server.stop()
        say(f"filling a ledger with {images} × {STORES}")
        fill(server.ledger, images)
        begun = time.monotonic()
        server.start()
        say(f"{images} images: {server.ledger.stat().st_size >> 20} MiB, started in {time.monotonic() - begun:.1f} s")
        # It looks at where all its copies are when it starts.
        eventually(lambda: server.ask(server.browser(), "/v1/stores") < 60, 300, "it answers")
        yield server
    finally:
        server.stop()


def fill(ledger: Path, images: int) -> None:
    """As commits would leave it: nine in ten images are in place, the others failed at one store or are on their way. The
    states of the images are left to the next start, which derives them."""
    with sqlite3.connect(ledger) as database:
        database.execute("PRAGMA synchronous = OFF")
        wanted = json.dumps([f"s{n}" for n in range(STORES)])
        ids = sorted(str(uuid.uuid4()) for _ in range(images))
        database.executemany(
            "INSERT INTO images (id, name, status, size, owner, wanted, rules, observed_at)"
            " VALUES (?, ?, 'active', ?, ?, ?, ?, ?)",
            ((image, f"image-{n}", n << 20, f"project-{n % 500}", wanted, rules(n), NOW) for n, image in enumerate(ids)),
        )
        replicas = (replica(n, image, store) for n, image in enumerate(ids) for store in range(STORES))
        database.executemany(
            "INSERT INTO replicas (image, store, state, object, url, size, digest, proof_kind, proof_at, seen_at,"
            " failure_reason, failure_message, failure_tries, failure_next_try)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'readback', ?, ?, ?, ?, ?, ?)", replicas)
        database.executemany(
            "INSERT INTO objects (store, name, image, url, state, since) VALUES (?, ?, ?, ?, 'kept', ?)",
            ((f"s{store}", f"{image}.1", image, url(image, store), NOW) for image in ids for store in range(STORES)))
    database.close()


def rules(n: int) -> str:
    return json.dumps(["everywhere", "rare"] if n == 99_999 else ["everywhere"])


def url(image: str, store: int) -> str:
    return f"http://127.0.0.1:9/s{store}/{image}.1"


def replica(n: int, image: str, store: int) -> tuple:
    failed = n % 10 == 0 and store == n // 10 % STORES
    state, failure = ("failed", ("store-full", "no room", 3, NOW)) if failed else ("registered", (None,) * 4)
    digest = f"{n:064x}"
    return image, f"s{store}", state, f"{image}.1", url(image, store), n << 20, digest, NOW + n, NOW, *failure


def run(lab: Lab, options) -> Report:
    samples, scratch = Samples(), Path(tempfile.mkdtemp(prefix="mimeo-bench-"))
    sizes = {"few": SMALL, "many": options.ledger_images}
    try:
        with limit(1800, TITLE):
            for size, images in sizes.items():
                with serving(scratch / size, images) as server:
                    measure(server, size, options.rounds * 5, samples)
    finally:
        shutil.rmtree(scratch)
    rows = []
    for name in [*COMMANDS, *QUESTIONS]:
        many = milliseconds(samples, name, "many")
        rows.append({
            "question": name, "median ms": many.text(1), "spread": many.spread(1),
            "ratio to 100 images": compared(samples, "seconds", f"{name}, many", f"{name}, few").text(),
        })
    asked_first = ("mimeo status", "dashboard: first page", "API: overview", "API: first page")
    slowest = max(samples.cases()[f"{name}, many"].series("seconds").median for name in asked_first)
    shows = [f"With {sizes['many']:,} images at {STORES} stores, `mimeo status`, the dashboard's first page, the API's, and the "
             f"overview take at most {slowest * 1000:.0f} ms."]
    notes = ["Commands with the start of their process. The ledger is SQLite on the disk; nothing else runs."]
    return Report(TITLE, rows, shows, notes, samples)


def milliseconds(samples: Samples, name: str, size: str):
    series = samples.cases()[f"{name}, {size}"].series("seconds")
    return type(series)([value * 1000 for value in series.values])


def measure(server: Serve, size: str, rounds: int, samples: Samples) -> None:
    browser = server.browser()
    for number in range(-WARM, rounds):
        for name, command in COMMANDS.items():
            sample = Sample(f"{name}, {size}", number, 0, server.run(command))
            samples.extend([sample] if number >= 0 else [])
        for name, path in QUESTIONS.items():
            sample = Sample(f"{name}, {size}", number, 0, server.ask(browser, path))
            samples.extend([sample] if number >= 0 else [])
