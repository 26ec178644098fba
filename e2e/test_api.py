"""The API as others use it: who may call, pages and filters, events, and its own description put to the test."""

import json
import subprocess
import threading
import time

import pytest
import requests
from cryptography.fernet import Fernet, MultiFernet

from cloud.base import eventually, run
from cloud.keystone import SECRET
from cloud.uwsgi import VENV

CONFIRM = "/v1/gc/confirm?seen=2000-01-01T00:00:00Z"
ROLES = {"admin_roles": ["admin"], "reader_roles": ["auditor"]}


def ask(mimeo, path: str, token: str | None = None, method: str = "GET", **headers) -> requests.Response:
    """As a client of OpenStack does, with a token of Keystone's."""
    if token:
        headers["X-Auth-Token"] = token
    return requests.request(method, f"http://127.0.0.1:{mimeo.port}{path}", headers=headers, timeout=30)


@pytest.fixture
def auditor(cloud):
    """Alice, a member of her project, is a reader of Mimeo too."""
    keystone = cloud.keystone
    found = keystone.admin("GET", "/roles?name=auditor")["roles"]
    role = (found or [keystone.admin("POST", "/roles", json={"role": {"name": "auditor"}})["role"]])[0]["id"]
    keystone.ids["role:auditor"] = role
    keystone.grant("alice", "auditor")
    keystone._tokens.pop("alice", None)
    yield "alice"
    keystone.revoke("alice", "auditor")
    keystone._tokens.pop("alice", None)


def keys_of(keystone) -> MultiFernet:
    return MultiFernet([Fernet(path.read_bytes()) for path in sorted((keystone.dir / "fernet").iterdir())])


def rewritten(token: str, own: MultiFernet, other: Fernet | MultiFernet) -> str:
    """All that is in a token of Keystone's, as a Keystone with other keys would write it: without the padding."""
    return other.encrypt(own.decrypt(token + "=" * (-len(token) % 4))).decode().rstrip("=")


def problem(answer: requests.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code and told["detail"] and told["cure"] and told["title"], told
    assert told["type"] == f"urn:mimeo:problem:{told['code']}"
    return answer.status_code, told["code"]


def test_keystones_tokens_open_what_their_roles_allow(cloud, mimeo, auditor):
    """An admin may write, a reader only read, a member nothing; expired, revoked, forged and foreign tokens: 401;
    while Keystone is down Mimeo's own token works, and another is told why it does not."""
    keystone = cloud.keystone
    mimeo.serve(api={**ROLES, "listen": f"127.0.0.1:{mimeo.port}"})
    admin, reader, member = (keystone.token(user).value for user in ("admin", auditor, "bob"))
    assert ask(mimeo, "/v1/overview", admin).ok
    assert requests.get(
        f"http://127.0.0.1:{mimeo.port}/v1/overview", headers={"Authorization": f"Bearer {admin}"}, timeout=30
    ).ok
    assert ask(mimeo, CONFIRM, admin, "POST").status_code == 204
    assert ask(mimeo, "/v1/overview", reader).ok
    assert problem(ask(mimeo, CONFIRM, reader, "POST")) == (403, "forbidden")
    assert problem(ask(mimeo, "/v1/overview", member)) == (403, "forbidden")
    forged = admin[:-4] + ("AAAA" if not admin.endswith("AAAA") else "BBBB")
    revoked = requests.post(f"{keystone.url}/auth/tokens", timeout=30, json={"auth": {
        "identity": {"methods": ["token"], "token": {"id": admin}},
        "scope": {"project": {"name": "admin", "domain": {"id": "default"}}},
    }}).headers["X-Subject-Token"]
    requests.delete(
        f"{keystone.url}/auth/tokens", headers={"X-Auth-Token": admin, "X-Subject-Token": revoked}, timeout=30
    ).raise_for_status()
    keys = keys_of(keystone)
    foreign = rewritten(reader, keys, Fernet(Fernet.generate_key()))
    assert ask(mimeo, "/v1/overview", rewritten(reader, keys, keys)).ok, "only its key is wrong with the foreign one"
    for bad in (None, forged, revoked, foreign, SECRET):
        assert problem(ask(mimeo, "/v1/overview", bad)) == (401, "unauthorized"), bad
    keystone.stop()
    try:
        answer = ask(mimeo, "/v1/overview", "never-seen")
        assert problem(answer) == (503, "identity-unavailable")
        assert str(keystone.port) not in answer.text, "who is not signed in learns nothing of where it is"
        assert mimeo.api("/v1/overview").ok
    finally:
        keystone.start()
    log = mimeo.log.read_text()
    assert not any(token in log for token in (admin, reader, member, forged, revoked, foreign)), "a token is in the log"


def test_a_token_is_worth_nothing_once_it_is_expired(cloud, mimeo):
    """Also where it was just used, and remembered."""
    keystone = cloud.keystone
    keystone.reconfigured({"token": {"expiration": 4}})
    try:
        mimeo.serve(events=None)
        token = keystone.token("admin").value
        assert ask(mimeo, "/v1/overview", token).ok
        eventually(lambda: ask(mimeo, "/v1/overview", token).status_code == 401, 20, "the token expires")
    finally:
        keystone.reconfigured(None)


def test_pages_filters_and_what_has_not_changed(mimeo, images):
    rules = [{"name": "all"}, {"name": "the last", "when": 'image.name == "page-2"'}]
    mimeo.serve(rules=rules)
    made = sorted(images.create(b"x%d" % n, name=f"page-{n}") for n in range(3))
    for image in made:
        mimeo.wait_registered(image)

    def page(path):
        answer = mimeo.api(path)
        assert answer.ok, answer.text
        return [image["id"] for image in answer.json()["images"]], answer.json()["next"]

    first, following = page("/v1/images?limit=2&state=registered")
    last, end = page(following)
    assert first + last == made and end is None and len(first) == 2
    assert page("/v1/images?name=PAGE-1&store=http2&replica=registered")[0] == [
        image for image in made if images.show(image)["name"] == "page-1"
    ]
    assert page("/v1/images?state=failed") == ([], None)
    owner = images.show(made[0])["owner"]
    assert page(f"/v1/images?owner={owner}")[0] == made
    assert page("/v1/images?rule=all")[0] == made
    [last] = page("/v1/images?rule=the+last")[0]
    assert images.show(last)["name"] == "page-2" and mimeo.api(f"/v1/images/{last}").json()["rules"] == ["all", "the last"]
    answer = mimeo.api("/v1/images?rule=al")
    assert problem(answer) == (400, "bad-request") and "known: all, the last" in answer.json()["detail"], answer.text
    assert mimeo.run("status", "--rule", "the last", "-f", "value", "-c", "Name")[1].split() == ["page-2"]
    answer = mimeo.api("/v1/images?state=lost")
    assert problem(answer) == (400, "bad-request") and "state" in answer.json()["detail"], answer.text
    own = (mimeo.dir / "mimeo.token").read_text().strip()
    tag = mimeo.api("/v1/limits").headers["ETag"]
    assert ask(mimeo, "/v1/limits", own, **{"If-None-Match": tag}).status_code == 304
    assert mimeo.patch_limits({"bandwidth": 1 << 30}).ok
    assert ask(mimeo, "/v1/limits", own, **{"If-None-Match": tag}).json()["bandwidth"] == 1 << 30
    late = mimeo.patch_limits({"bandwidth": 1}, **{"If-Match": tag})
    assert problem(late) == (412, "changed-meanwhile") and mimeo.limits()["bandwidth"] == 1 << 30
    tag = mimeo.api("/v1/limits").headers["ETag"]
    assert mimeo.patch_limits({"bandwidth": 1 << 20}, **{"If-Match": tag}).json()["bandwidth"] == 1 << 20
    assert mimeo.run("status", "--name", "page-2", "-f", "value", "-c", "Name")[1].split() == ["page-2"]
    table = mimeo.run("status")[1]
    assert table.startswith("3 images: 3 registered\n") and "events connected" in table, table


def test_health_and_readiness_are_told_to_anybody(cloud, mimeo):
    """Ready only when Glance has been looked at."""
    cloud.glance.stop()
    try:
        mimeo.serve(events=None)
        assert ask(mimeo, "/healthz").text == "ok\n"
        assert problem(ask(mimeo, "/readyz")) == (503, "not-ready")
    finally:
        cloud.glance.start()
    eventually(lambda: ask(mimeo, "/readyz").text == "ready\n", 30, "mimeo is ready")


def certificate(directory, name: str):
    """One that names the loopback address, signed by itself."""
    key, file = directory / f"{name}.key", directory / f"{name}.pem"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
         f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", file])
    return key, file


def test_the_api_speaks_https_with_a_certificate_that_is_renewed(mimeo):
    """The commands take no other certificate; a SIGHUP puts what the files hold by then in force."""
    (key, file), (other_key, other) = (certificate(mimeo.dir, name) for name in ("first", "second"))
    mimeo.serve(events=None, api={"listen": f"127.0.0.1:{mimeo.port}", "certificate": str(file), "key": str(key)})
    url = f"https://127.0.0.1:{mimeo.port}/healthz"
    assert requests.get(url, verify=str(file), timeout=30).text == "ok\n"
    assert mimeo.run("status")[0] == 0
    with pytest.raises(requests.ConnectionError):
        ask(mimeo, "/healthz")
    key.write_text(other_key.read_text())
    file.write_text(other.read_text())
    code, _, err = mimeo.run("status")
    assert code == 1 and "another certificate" in err, err
    mimeo.reload()
    eventually(lambda: mimeo.run("status")[0] == 0, 30, "the new certificate is shown")
    assert requests.get(url, verify=str(other), timeout=30).text == "ok\n"


class Listener(threading.Thread):
    """Reads the stream of events in the background."""

    def __init__(self, mimeo, last: int | None = None):
        super().__init__(daemon=True)
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        headers["Authorization"] = f"Bearer {(mimeo.dir / 'mimeo.token').read_text().strip()}"
        self.answer = requests.get(
            f"http://127.0.0.1:{mimeo.port}/v1/events", headers=headers, stream=True, timeout=60
        )
        assert self.answer.headers["Content-Type"] == "text/event-stream", self.answer.text
        self.events: list[dict] = []
        self.start()

    def run(self):
        event: dict = {}
        try:
            for line in self.answer.iter_lines(chunk_size=1, decode_unicode=True):
                key, _, value = line.partition(": ")
                if line:
                    event[key] = value
                elif "event" in event:
                    self.events.append({**event, "data": json.loads(event["data"])})
                    event = {}
        except (requests.RequestException, AttributeError):
            pass  # it was closed meanwhile

    def wait(self, fits) -> dict:
        return eventually(lambda: next(filter(fits, list(self.events)), None), 30, "the event comes")


def registered(image, store):
    return lambda event: event["event"] == "change" and (
        event["data"]["image"], event["data"]["store"], event["data"]["state"]) == (image, store, "registered")


def test_events_are_told_as_they_happen_and_none_is_missed_meanwhile(mimeo, images):
    mimeo.serve()
    listener = Listener(mimeo)
    assert listener.wait(lambda event: True)["event"] == "ready"
    first = images.create(b"told")
    event = listener.wait(registered(first, "http1"))
    listener.answer.close()
    second = images.create(b"told later")
    mimeo.wait_registered(second)
    again = Listener(mimeo, int(event["id"]))
    for store in mimeo.stores:
        again.wait(registered(second, store))
    numbers = [int(event["id"]) for event in again.events if event["event"] == "change"]
    assert numbers == sorted(numbers) and numbers[0] > int(event["id"])
    assert Listener(mimeo, 10**9).wait(lambda event: True)["event"] == "reset"
    code, out, err = mimeo.run("events", "--json", "--limit", "1000")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and {first, second} <= {line["image"] for line in lines}, err
    assert [line["number"] for line in lines] == sorted(line["number"] for line in lines)


def test_rules_and_what_another_would_do(mimeo, images):
    """Nothing is written for it."""
    rule = {"name": "small", "when": "image.size < 100", "stores": ["http1"]}
    mimeo.serve(rules=[rule, {"name": "gold", "when": 'image.properties.tier == "gold"', "stores": ["http2"]}])
    image = images.create(b"small")
    mimeo.wait_registered(image, stores=["http1"])
    rows = {row["Name"]: row for row in mimeo.ask("rules")}
    assert (rows["small"]["Matches"], rows["gold"]["Matches"], rows["gold"]["Fails"]) == (1, 0, 1), rows
    assert "tier" in rows["gold"]["Why"]
    tried = mimeo.ask("rules", "--try", 'image.size > 2', "--store", "http1", "--store", "http3")
    assert tried == [{"Image": image, "Name": images.show(image)["name"], "Stores": "http1, http3", "New": "http3"}]
    code, _, err = mimeo.run("rules", "--try", "image.siez > 2")
    assert code == 2 and "siez" in err, err
    assert [replica["store"] for replica in mimeo.status(image)["replicas"]] == ["http1"]


@pytest.mark.parametrize("token", ["own", "forged", None], ids=["with a token", "with a forged one", "without"])
def test_the_api_is_as_it_is_described(mimeo, images, token):
    """schemathesis sends what fits the document and what does not: no 5xx, no answer that is not described, and none to
    somebody without a token where the document wants one."""
    mimeo.serve(events=None)
    image = images.create(b"described")
    mimeo.wait_registered(image)
    known = token == "own"
    if known:
        token = (mimeo.dir / "mimeo.token").read_text().strip()
    document = mimeo.dir / "openapi.json"
    document.write_text(mimeo.api("/v1/openapi.json").text)
    # By itself it makes tokens up.
    none = ["--generation-with-security-parameters", "false"]
    sent = ["--header", f"Authorization: Bearer {token}"] if token else none
    begun = time.monotonic()
    done = subprocess.run(
        [VENV / "bin/schemathesis", "run", document, "--url", f"http://127.0.0.1:{mimeo.port}",
         *sent, "--exclude-path", "/v1/events", "--phases", "coverage,fuzzing",
         "--max-examples", "8" if known else "2", "--max-time", "25" if known else "10", "--seed", "1", "--no-color",
         "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
                     "response_headers_conformance,ignored_auth"],
        capture_output=True, text=True, timeout=120, cwd=mimeo.dir,
    )
    print(f"{time.monotonic() - begun:.0f} s", done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert mimeo.running() and mimeo.status(image)["state"] == "registered"
