"""Metrics as Prometheus reads them, the alerts in its own test; webhooks to a server that has its own troubles, and traces
as a real OpenTelemetry collector takes them and passes them on."""

import base64
import gzip
import hashlib
import hmac
import json
import re
import subprocess
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from book import DOCS, blocks
from cloud.base import eventually, free_port
from cloud.collector import Collector
from cloud.prometheus import Prometheus

ROOT = Path(__file__).parent.parent
PROMTOOL = "/usr/bin/promtool"
SECRET = "0123456789abcdef0123456789abcdef"
# What there is only for stores that are drained, or of which it is known whether they answer.
OF_SOME = {"mimeo_store_draining", "mimeo_store_up"}


def promtool(*arguments, **more) -> None:
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=120, **more)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_the_alerts_fire_in_an_outage_and_are_silent_on_a_quiet_day():
    directory = ROOT / "deploy/prometheus"
    promtool("check", "rules", directory / "alerts.yml")
    promtool("test", "rules", directory / "alerts.test.yml")


def expressions(panels: list[dict]) -> list[str]:
    """What a dashboard's panels ask for, also those that are folded into a row."""
    own = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return own + [each for panel in panels for each in expressions(panel.get("panels", []))]


def test_the_dashboards_expressions_are_prometheuss(tmp_path):
    """Each as a rule that records it, with what Grafana puts in for its variables."""
    board = json.loads((ROOT / "deploy/grafana/mimeo.json").read_text())
    values = {variable["name"]: ".*" for variable in board["templating"]["list"]} | {"__rate_interval": "2m"}
    # A variable that is chosen from a question to Prometheus has an expression too.
    questions = [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    asked = [re.fullmatch(r"label_values\((.+), \w+\)", question)[1] for question in questions]
    asked += expressions(board["panels"])
    assert len(asked) > len(questions), "no panel asks for anything"
    # One that the dashboard does not have is a KeyError.
    filled = [re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], expression) for expression in asked]
    rules = [{"record": f"dashboard:number_{n}", "expr": expression} for n, expression in enumerate(filled)]
    file = tmp_path / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


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


def of_the_guide(target: str) -> dict:
    """The guide's configuration of Prometheus, with another target, and looking every second."""
    [block] = [block for block in blocks(DOCS / "monitoring.md") if block.language == "yaml"]
    config = yaml.safe_load(block.text)
    [job] = config["scrape_configs"]
    job |= {"scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    return {"global": {"evaluation_interval": "1s"}, **config}


def at_once(alerts: str) -> str:
    """The alerts without their patience."""
    rules = yaml.safe_load(alerts)
    for rule in rules["groups"][0]["rules"]:
        rule.pop("for", None)
    return yaml.safe_dump(rules)


def test_a_prometheus_by_the_guide_fires_what_breaks_and_nothing_else(cloud, mimeo, images):
    """A store is down, then Glance, then Mimeo itself; and all is quiet before, between and after."""
    token = mimeo.dir / "reader.token"
    mimeo.serve(api={"listen": f"127.0.0.1:{mimeo.port}", "reader_token_file": str(token)})
    mimeo.wait_registered(images.create(b"watched"))
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    files = {"alerts.yml": at_once(alerts), "mimeo.token": token.read_text()}
    prometheus = Prometheus(mimeo.dir, of_the_guide(f"127.0.0.1:{mimeo.port}"), files)
    prometheus.start()

    def is_quiet():
        return prometheus.value('up{job="mimeo"}') == 1 and not prometheus.firing()

    def breaks(peer, alert: str, store: str | None = None):
        peer.stop()
        try:
            eventually(prometheus.firing, 60, f"{alert} fires")
            assert prometheus.firing() == {(alert, store)}
        finally:
            peer.start()
        eventually(is_quiet, 60, f"{alert} is over")

    try:
        eventually(is_quiet, 60, "it reads the metrics")
        breaks(cloud.nginx[2], "MimeoStoreDown", store="http3")
        breaks(cloud.glance, "MimeoGlanceDown")
        breaks(mimeo, "MimeoDown")
    finally:
        prometheus.stop()


LEVELS = {"ERROR", "WARN", "INFO", "DEBUG", "TRACE"}


def test_each_line_of_a_log_in_json_is_an_object(cloud, mimeo, images, faulty):
    """With its time, level and message: from the start to the end, while copies are made and fail, and when the
    configuration is read again. A failure names its image and store."""
    broken = faulty()
    broken.fault("PUT", "status", 507)
    mimeo.use(*cloud.nginx[:2], broken)
    mimeo.serve(log={"format": "json"})
    image = images.create(b"logged")
    mimeo.wait_reason(image, "http3", {"store-full"})
    broken.heal()
    mimeo.wait_registered(image)
    before = len(mimeo.log_lines())
    mimeo.reload()
    eventually(lambda: len(mimeo.log_lines()) > before, 30, "what came of the reload is logged")
    mimeo.stop()
    lines = [json.loads(line) for line in mimeo.log_lines()]
    for line in lines:
        assert line["level"] in LEVELS and line["message"], line
        assert datetime.fromisoformat(line["timestamp"]).tzinfo, line
    failures = [line for line in lines if line.get("reason") == "store-full"]
    assert failures and all((line["level"], line["store"]) == ("WARN", "http3") for line in failures), failures
    assert {line["span"]["id"] for line in failures} == {image}


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
                    self.send_response(200)
                self.send_header("Content-Length", "0")
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
        return [line for line in mimeo.log_lines() if "what happened is not taken" in line and "nobody" in line]

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


def traces(receiver) -> list[dict]:
    """The spans of each trace that a collector passed on, by their names and stores."""
    found = []
    for _, body in list(receiver.events):
        for resource in ExportTraceServiceRequest.FromString(gzip.decompress(body)).resource_spans:
            assert {"service.name", "service.version"} == {attribute.key for attribute in resource.resource.attributes}
            (scope,) = resource.scope_spans
            assert {len(span.trace_id) for span in scope.spans} == {16}
            assert {len(span.span_id) for span in scope.spans} == {8}
            said = [({it.key: it.value.string_value for it in span.attributes}, span) for span in scope.spans]
            found.append({
                (span.name, words.get("mimeo.store", words.get("mimeo.image.id"))): span for words, span in said
            })
    return found


def test_a_trace_tells_an_images_way_once_its_last_copy_is_registered(cloud, mimeo, images):
    """A real collector that is away, a store that is down for a while, a restart: one trace, with what it waited for."""
    port = free_port()
    mimeo.serve(traces={"endpoint": f"http://127.0.0.1:{port}"})
    cloud.nginx[2].stop()
    try:
        image = images.create(bytes(1_000_000))
        mimeo.wait_registered(image, stores=["http1", "http2"])
        mimeo.stop()
        mimeo.start()
    finally:
        cloud.nginx[2].start()
    mimeo.wait_registered(image)
    with Receiver() as receiver:
        collector = Collector(mimeo.dir, passes_on_to=receiver.url, port=port)
        collector.start()
        try:
            eventually(lambda: traces(receiver), 60, "the trace")
            quick = images.create(bytes(1000))
            mimeo.wait_registered(quick)
            eventually(lambda: len(traces(receiver)) == 2, 60, "the second image's trace, and no other")
        finally:
            collector.stop()
        first, second = traces(receiver)
    root = first["replicate", image]
    assert not root.parent_span_id
    copies = [first["copy", store] for store in ("http1", "http2", "http3")]
    assert {copy.parent_span_id for copy in copies} == {root.span_id}
    assert max(copy.end_time_unix_nano for copy in copies) == root.end_time_unix_nano
    assert min(copy.start_time_unix_nano for copy in copies) >= root.start_time_unix_nano > 0
    failed = first["failed", "http3"]
    assert failed.parent_span_id == copies[2].span_id and failed.status.code == Status.STATUS_CODE_ERROR
    assert "store-unreachable" in str(failed.attributes) and failed.status.message
    assert {name for name, _ in second} >= {"replicate", "copy", "copying", "proven"}
    assert ("replicate", quick) in second and not any(name == "failed" for name, _ in second)
