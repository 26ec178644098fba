"""Metrics as Prometheus reads them, the alerts in its own test, and webhooks to a server that has its own troubles."""

import base64
import hashlib
import hmac
import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from cloud.base import eventually, free_port

ROOT = Path(__file__).parent.parent
PROMTOOL = "/usr/bin/promtool"
SECRET = "0123456789abcdef0123456789abcdef"
# What there is only for stores that are drained, or that their probers have asked.
OF_SOME = {"mimeo_store_draining", "mimeo_store_up"}


def promtool(*arguments, **more) -> None:
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=120, **more)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_the_alerts_fire_in_an_outage_and_are_silent_on_a_quiet_day():
    directory = ROOT / "deploy/prometheus"
    promtool("check", "rules", directory / "alerts.yml")
    promtool("test", "rules", directory / "alerts.test.yml")


def samples(mimeo) -> dict[str, float]:
    """Each sample with its labels, as it stands there."""
    text = requests.get(f"http://127.0.0.1:{mimeo.port}/metrics", timeout=10).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_metrics_tell_of_copies_lags_outages_and_survive_a_restart(cloud, mimeo, images):
    with Receiver() as receiver:
        more = {
            "api": {"listen": f"127.0.0.1:{mimeo.port}", "metrics": "open"},
            "webhooks": [{"name": "pager", "url": receiver.url, "secret": SECRET}],
        }
        mimeo.serve(**more)
        image = images.create(bytes(1_000_000))
        mimeo.wait_registered(image)
        lag = 'mimeo_replication_lag_seconds_count{rule="default",store="http%d"}'
        eventually(lambda: all(samples(mimeo).get(lag % n, 0) >= 1 for n in (1, 2, 3)), 30, "a lag for each copy")
        text = requests.get(f"http://127.0.0.1:{mimeo.port}/metrics", timeout=10).text
        promtool("check", "metrics", input=text)
        now = samples(mimeo)
        there = {re.split(r"[ {]", name)[0] for name in now}
        for file in ("deploy/prometheus/alerts.yml", "deploy/grafana/mimeo.json"):
            named = set(re.findall(r"\b(?:mimeo|process)_[a-z_]+", (ROOT / file).read_text()))
            assert named - there <= OF_SOME, f"{file} names what is not there"
        assert now['mimeo_replicas{store="http1",state="registered"}'] >= 1
        assert now['mimeo_store_bytes_total{store="http1",direction="written"}'] >= 1_000_000
        assert now["mimeo_events_connected"] == 1 and now["mimeo_oldest_unregistered_seconds"] == 0
        assert now['mimeo_failures_total{store="http1",reason="store-full"}'] == 0
        cloud.nginx[2].stop()
        try:
            late = images.create(bytes(1000))
            mimeo.wait_registered(late, stores=["http1", "http2"])
            eventually(lambda: samples(mimeo)["mimeo_oldest_unregistered_seconds"] > 0, 30, "the age of what is missing")
            failures = 'mimeo_failures_total{store="http3",reason="store-unreachable"}'
            eventually(lambda: samples(mimeo).get(failures, 0) > 0, 30, "the failures")
            before = samples(mimeo)["mimeo_oldest_unregistered_seconds"]
            mimeo.stop()
            mimeo.start()
            # The ledger has it: a new process begins at no other age.
            eventually(lambda: samples(mimeo)["mimeo_oldest_unregistered_seconds"] > before, 30, "the age after a restart")
        finally:
            cloud.nginx[2].start()
        mimeo.wait_registered(late)
        eventually(lambda: samples(mimeo)["mimeo_oldest_unregistered_seconds"] == 0, 30, "all where they should be")


class Receiver:
    """Takes events, or refuses so many first."""

    def __init__(self, refuses: int = 0, port: int = 0):
        self.events, self.refused = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sent = (dict(self.headers), body)
                if len(outer.refused) < refuses:
                    outer.refused.append(sent)
                    self.send_response(503)
                else:
                    outer.events.append(sent)
                    self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def told(self) -> list[dict]:
        return [json.loads(body) for _, body in list(self.events)]


def signature(headers: dict, body: bytes) -> str:
    """As a receiver computes it."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()


def test_webhooks_miss_nothing_while_the_other_side_is_away_or_serve_is(cloud, mimeo, images):
    """A server that is not there, then refuses twice, then takes: every step of the copies, in order, signed. And a dead
    one beside it holds up nothing."""
    (port, dead) = (free_port(), free_port())
    secret = mimeo.dir / "webhook.secret"
    secret.write_text(SECRET + "\n")
    hook = {"name": "all", "url": f"http://127.0.0.1:{port}/hook", "secret": "file:webhook.secret", "only": "all"}
    nobody = {**hook, "name": "nobody", "url": f"http://127.0.0.1:{dead}/hook?token=T0KEN"}
    mimeo.serve(webhooks=[nobody, hook])

    def complaints() -> list:
        return [line for line in mimeo.log_lines() if "does not take an event" in line and "nobody" in line]

    first = images.create(bytes(1000))
    mimeo.wait_registered(first)
    eventually(lambda: len(complaints()) == 1, 30, "the one that is not there is told of")
    mimeo.stop()
    mimeo.start()
    with Receiver(refuses=2, port=port) as receiver:
        second = images.create(bytes(1000))
        mimeo.wait_registered(second)

        def registered(image) -> set:
            states = [(event["subject"], event["type"]) for event in receiver.told()]
            return {subject for subject, kind in states if subject.startswith(image) and kind == "mimeo.copy.registered"}

        for image in (first, second):
            eventually(lambda: len(registered(image)) == 3, 60, "three registered copies are told")
        assert len(receiver.refused) == 2
        for headers, body in [*receiver.refused, *receiver.events]:
            headers = {name.lower(): value for name, value in headers.items()}
            assert headers["webhook-signature"] == signature(headers, body)
            assert headers["content-type"].startswith("application/cloudevents+json")
            event = json.loads(body)
            assert event["specversion"] == "1.0" and event["id"] == headers["webhook-id"]
        numbers = [int(event["id"].split("-")[0]) for event in receiver.told()]
        assert numbers == sorted(set(numbers)), "in order, each once"
        of_first = [event["type"] for event in receiver.told() if event["subject"] == f"{first}/http1"]
        assert of_first[-1] == "mimeo.copy.registered" and "mimeo.copy.copying" in of_first
    log = mimeo.log.read_text()
    assert SECRET not in log and "T0KEN" not in log
    assert len(complaints()) == 2, "once for each start"
