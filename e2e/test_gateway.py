"""The gateway: uploads are in every store when the client is answered, and a proxy is all that it is otherwise."""

import json
import os
import re
import signal
import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests

from cloud.base import always, eventually, free_port, run
from cloud.images import PATCH_TYPE, Images

MiB = 1 << 20
IMAGE_OPTIONS = ("--disk-format", "raw", "--container-format", "bare")


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


def upload(images: Images, image: str, data, **headers) -> requests.Response:
    headers = {"Content-Type": "application/octet-stream", **headers}
    return images.raw("PUT", f"/images/{image}/file", data=data, headers=headers)


def reads_of(cloud, image: str) -> list[str]:
    """The requests for the image's bits that reached Glance."""
    return [line for line in cloud.glance.log.read_text().splitlines() if f"GET /v2/images/{image}/file" in line]


def test_three_backends_as_asked_for(cloud, mimeo, gateway, clients, file_of):
    """When `openstack image create --file` returns, the image shows a location on each of the three servers, every
    server has the bytes, and nobody read them from Glance."""
    url = gateway(scan={"interval": "1h"})
    clients.env = {**clients.env, "OS_IMAGE_ENDPOINT_OVERRIDE": url}
    data = os.urandom(8 * MiB)
    made = clients.openstack_json("image", "create", "--file", file_of(data), *IMAGE_OPTIONS, "created")
    mimeo.assert_complete(made["id"], data)
    assert reads_of(cloud, made["id"]) == []


@pytest.mark.parametrize("ack, told", [("all", "3/3"), (2, "2/3"), ("none", "0/3")])
def test_the_answer_waits_for_as_many_replicas_as_wanted(mimeo, gateway, images, through, ack, told):
    """The header counts at least as many registered replicas as `ack` asks for; the others follow."""
    url = gateway(gateway={"ack": ack})
    image, data = images.record(), os.urandom(MiB)
    answer = upload(through(url), image, data)
    registered, wanted = answer.headers["X-Mimeo-Replicas"].split("/")
    assert (answer.status_code, wanted) == (204, "3")
    assert registered >= told[0]
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_a_dead_store_is_not_waited_for_beyond_the_deadline(cloud, mimeo, gateway, through, images):
    """With one of three stores down the upload succeeds, is answered at the deadline with what is registered, and the
    third copy follows when the store is back."""
    cloud.nginx[2].stop()
    url = gateway(gateway={"ack_timeout": "3s"})
    image, data = images.record(), os.urandom(MiB)
    answer = upload(through(url), image, data)
    assert (answer.status_code, answer.headers["X-Mimeo-Replicas"]) == (204, "2/3")
    cloud.nginx[2].start()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_a_store_that_takes_no_byte_does_not_hold_up_the_upload(cloud, mimeo, gateway, through, images, faulty):
    """One store stalls in the middle: Glance, which gives up after four seconds, never notices."""
    slow = faulty()
    mimeo.use(cloud.nginx[0], cloud.nginx[1], slow)
    slow.fault("PUT", "stall")
    url = gateway(gateway={"ack": 2})
    image, data = images.record(), os.urandom(32 * MiB)
    answer = upload(through(url), image, data)
    assert (answer.status_code, answer.headers["X-Mimeo-Replicas"]) == (204, "2/3")
    slow.heal()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def stored(mimeo) -> set:
    """What there is on any of the stores."""
    return {path for name in mimeo.stores for path in mimeo.objects(name)}


def nothing_left(mimeo, images, image: str) -> None:
    """On no server anything of it, and nothing in the ledger to be removed."""
    eventually(lambda: not stored(mimeo), 60, "the stores are empty")
    assert images.show(image)["locations"] == []


def test_an_upload_that_glance_refuses_leaves_nothing(cloud, mimeo, gateway, through, images):
    """A bad token, an image that has its bits, an image of another project, no such image: Glance's own answer, and no
    byte on any store."""
    url = gateway()
    done, data = images.create(b"x" * 1000), os.urandom(MiB)
    mimeo.wait_registered(done)
    before = stored(mimeo)
    empty = images.record()
    through_it, headers = through(url), {"Content-Type": "application/octet-stream"}
    refused = {
        "token": requests.put(f"{url}/v2/images/{empty}/file", data=data, headers={**headers, "X-Auth-Token": "no"}),
        "active": upload(through_it, done, data),
        "unknown": upload(through_it, "3bd3b8c6-0000-4000-8000-000000000000", data),
        "type": through_it.raw("PUT", f"/images/{empty}/file", data=data, headers={"Content-Type": "text/plain"}),
    }
    assert {name: answer.status_code for name, answer in refused.items()} == {
        "token": 401, "active": 409, "unknown": 404, "type": 415,
    }
    assert stored(mimeo) == before
    assert images.show(empty)["status"] == "queued"


def test_a_client_that_goes_away_leaves_nothing(mimeo, gateway, images, cloud):
    """Half of the announced bytes, then the connection ends: Glance takes the image back to `queued`, and every partial
    object is removed."""
    url = gateway()
    image = images.record()
    head = (
        f"PUT /v2/images/{image}/file HTTP/1.1\r\nHost: glance\r\nContent-Type: application/octet-stream\r\n"
        f"X-Auth-Token: {cloud.keystone.token('admin').value}\r\nContent-Length: {8 * MiB}\r\n\r\n"
    )
    with connect(url) as connection:
        connection.sendall(head.encode() + os.urandom(4 * MiB))
        eventually(lambda: images.show(image)["status"] == "saving", 30, "Glance takes the upload")
    images.wait_status(image, "queued")
    nothing_left(mimeo, images, image)


def test_glance_dying_in_an_upload_leaves_nothing_and_the_next_one_works(cloud, mimeo, gateway, through, images):
    """glance-api is killed in mid-upload: the client gets an error, no object stays; after its restart the same image
    can be uploaded."""
    url = gateway()
    image = images.record()

    def body():
        yield os.urandom(MiB)
        eventually(lambda: images.show(image)["status"] == "saving", 30, "Glance takes the upload")
        cloud.glance.kill()
        for _ in range(64):
            yield os.urandom(MiB)

    try:
        assert upload(through(url), image, body()).status_code >= 500
    except requests.ConnectionError:
        pass  # The answer came while the body was still on its way.
    cloud.glance.start()
    eventually(lambda: not stored(mimeo), 60, "the stores are empty")
    again, data = images.record(), os.urandom(MiB)
    assert upload(through(url), again, data).status_code == 204
    mimeo.assert_complete(again, data)


def test_a_stop_lets_a_running_upload_end(mimeo, gateway, through, images):
    """SIGTERM in mid-upload: no new connection is taken, the upload ends with 204 and its replicas are registered before
    Mimeo ends."""
    url = gateway(gateway={"stop_timeout": "60s"})
    image, parts = images.record(), [os.urandom(MiB) for _ in range(8)]

    def body():
        for number, part in enumerate(parts):
            yield part
            if number == 3:
                os.kill(mimeo.process.pid, signal.SIGTERM)
                eventually(lambda: refuses(url), 30, "the gateway takes nobody new")

    answer = upload(through(url), image, body())
    assert (answer.status_code, answer.headers["X-Mimeo-Replicas"]) == (204, "3/3")
    assert mimeo.process.wait(timeout=60) == 0
    mimeo.assert_complete(image, b"".join(parts))


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def refuses(url: str) -> bool:
    try:
        connect(url).close()
    except ConnectionRefusedError:
        return True
    return False


def ask(url: str, request: bytes) -> bytes:
    """The first bytes of the answer to a request as it is spelled."""
    with connect(url) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def test_what_a_proxy_must_not_pass(cloud, mimeo, gateway, images):
    """Two lengths, bad chunks, huge headers, CONNECT, TRACE: refused. A length beside chunks (chunks count), other hosts,
    odd paths: answered by glance-api and nobody else. And nothing of it reaches a store."""
    url = gateway()
    image = images.record()
    token = f"X-Auth-Token: {cloud.keystone.token('admin').value}\r\n"
    put = f"PUT /v2/images/{image}/file HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n{token}"
    refused = {
        "two lengths": f"{put}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "no number": f"{put}Content-Length: 5x\r\n\r\nhello",
        "negative": f"{put}Content-Length: -5\r\n\r\nhello",
        "unknown coding": f"{put}Transfer-Encoding: gzip\r\n\r\nhello",
        "space before colon": f"{put}Content-Length : 5\r\n\r\nhello",
        "huge header": f"{put}X-Big: {'a' * 200_000}\r\nContent-Length: 5\r\n\r\nhello",
        "CONNECT": "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        "TRACE": "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    for name, request in refused.items():
        answer = ask(url, request.encode())
        assert answer == b"" or answer.split(b" ")[1][:1] == b"4", (name, answer[:200])
    other = ask(url, b"GET http://127.0.0.1:1/v2/images HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
    assert other.startswith(b"HTTP/1.1 401"), other[:200]
    both = f"{put}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    assert ask(url, both.replace(token, "").encode()).startswith(b"HTTP/1.1 401")
    for path in (f"//v2/images/{image}/file", f"/v2/../v2/images/{image}/file", f"/v2/images/{image}%2ffile", f"/v2/images/%2e%2e/{image}/file"):
        request = put.replace(f"/v2/images/{image}/file", path) + "Content-Length: 5\r\n\r\nhello"
        ask(url, request.encode())
    chunks = f"{put}Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"
    ask(url, chunks.encode())
    always(lambda: not stored(mimeo) or images.show(image)["status"] == "active", 2,
           "nothing is on a store without Glance's consent")


def test_an_empty_upload_is_answered_at_once(gateway, through, images):
    """Glance registers no location of an empty image: the client does not wait for what cannot come."""
    image = images.record()
    answer = upload(through(gateway(gateway={"ack_timeout": "10m"})), image, b"")
    assert (answer.status_code, images.show(image)["status"]) == (204, "active")


def recorded(images: Images, data: bytes) -> list[tuple]:
    """What every kind of call of the Images API is answered with, all that is particular to one run replaced."""
    answers: list[tuple] = []
    particular = re.compile(
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ?|e2e-[0-9a-f]{8}|"
        + re.escape(images.glance.url)
    )

    def call(method: str, path: str, **more) -> requests.Response:
        answer = images.raw(method, path, **more)
        headers = {name: particular.sub("*", value) for name, value in answer.headers.items()}
        for name in ("Date", "X-Openstack-Request-Id", "Connection", "Content-Length", "X-Mimeo-Replicas"):
            headers.pop(name, None)
        # Some of Glance's processes name the stores that it reserves for itself, some do not.
        stores = headers.get("OpenStack-image-store-ids", "").split(",")
        headers["OpenStack-image-store-ids"] = [store for store in stores if not store.startswith("os_glance_")]
        body = answer.content
        if "json" in answer.headers.get("Content-Type", ""):
            # Each of Glance's processes has an order of its own for an image's properties.
            body = particular.sub("*", json.dumps(answer.json(), sort_keys=True))
        elif "text" in answer.headers.get("Content-Type", ""):
            body = particular.sub("*", answer.text)
        answers.append((method, particular.sub("*", path), answer.status_code, headers, body))
        return answer

    patch = {"Content-Type": PATCH_TYPE}
    octets = {"Content-Type": "application/octet-stream"}
    for path in ("/", "/schemas/image", "/schemas/images", "/schemas/member", "/info/import", "/info/stores",
                 "/metadefs/namespaces?limit=2", "/tasks/3bd3b8c6-0000-4000-8000-000000000000", "/images?limit=1&name=nobody", "/nothing-here",
                 "/images/3bd3b8c6-0000-4000-8000-000000000000"):
        call("GET", path)
    call("POST", "/images", data="no json", headers={"Content-Type": "application/json"})
    image = call("POST", "/images", json={"name": "e2e-00000000", "disk_format": "raw", "container_format": "bare"}).json()["id"]
    call("PUT", f"/images/{image}/file", data=data, headers=octets)
    call("PUT", f"/images/{image}/file", data=data, headers=octets)
    call("GET", f"/images/{image}/file")
    call("GET", f"/images/{image}/file", headers={"Range": "bytes=10-19"})
    call("GET", f"/images/{image}/file", headers={"Range": "bytes=99999999-"})
    call("HEAD", f"/images/{image}/file")
    call("PATCH", f"/images/{image}", data='[{"op": "add", "path": "/x", "value": "\u00e9"}]'.encode(), headers=patch)
    call("PATCH", f"/images/{image}", data="[]", headers={"Content-Type": "text/plain"})
    call("PUT", f"/images/{image}/tags/blue")
    call("DELETE", f"/images/{image}/tags/blue")
    call("DELETE", f"/images/{image}/tags/blue")
    call("PATCH", f"/images/{image}", data='[{"op": "replace", "path": "/visibility", "value": "shared"}]', headers=patch)
    call("POST", f"/images/{image}/members", json={"member": "f" * 32})
    call("GET", f"/images/{image}/members")
    call("PUT", f"/images/{image}/members/{'f' * 32}", json={"status": "accepted"})
    call("DELETE", f"/images/{image}/members/{'f' * 32}")
    call("POST", f"/images/{image}/actions/deactivate")
    call("GET", f"/images/{image}/file")
    call("POST", f"/images/{image}/actions/reactivate")
    call("DELETE", f"/images/{image}")
    call("GET", f"/images/{image}")
    staged = call("POST", "/images", json={"name": "e2e-00000000", "disk_format": "raw", "container_format": "bare"}).json()["id"]
    call("PUT", f"/images/{staged}/stage", data=data, headers=octets)
    call("POST", f"/images/{staged}/import", json={"method": {"name": "no-such-method"}})
    call("POST", f"/images/{staged}/import", json={"method": {"name": "glance-direct"}})
    images.wait_status(staged, "active")
    call("GET", f"/images/{staged}/file")
    call("POST", "/metadefs/namespaces", json={"namespace": "e2e-00000000"})
    call("GET", "/metadefs/namespaces/e2e-00000000")
    call("DELETE", "/metadefs/namespaces/e2e-00000000")
    return answers


def test_every_call_is_answered_as_without_the_gateway(mimeo, gateway, through, images):
    """Every kind of call, with and without the gateway: the same status, headers and body, but for ids, times, and the
    header that counts replicas."""
    url = gateway(gateway={"ack": "none"}, rules=[{"name": "none", "when": "image.name == 'other'"}])
    data = os.urandom(100_000)
    for by_gateway, direct in zip(recorded(through(url), data), recorded(images, data), strict=True):
        assert by_gateway == direct
    assert url in requests.get(url, timeout=30).text, "links lead to where the client asked"


def test_the_clients_that_people_use(mimeo, gateway, clients, images, file_of, tmp_path):
    """glance image-create with chunks, import by staging, openstack image save; curl with `Expect: 100-continue`."""
    url = gateway()
    clients.env = {**clients.env, "OS_IMAGE_ENDPOINT_OVERRIDE": url, "OS_IMAGE_URL": url}
    data = os.urandom(3 * MiB)
    table = clients.glance("image-create", *IMAGE_OPTIONS, "--name", "chunks", "--file", file_of(data))
    chunks = next(line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| id "))
    mimeo.assert_complete(chunks, data)
    table = clients.glance(
        "image-create-via-import", *IMAGE_OPTIONS, "--import-method", "glance-direct", "--file", file_of(data), "--name", "staged",
    )
    staged = next(line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| id "))
    images.wait_status(staged, "active")
    mimeo.wait_registered(staged)
    mimeo.assert_complete(staged, data)
    saved = tmp_path / "saved.raw"
    clients.openstack("image", "save", "--file", saved, staged)
    assert saved.read_bytes() == data
    by_curl = images.record()
    done = run([
        "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect: 100-continue", "-T", file_of(data),
        "-H", f"X-Auth-Token: {images.keystone.token('admin').value}", "-H", "Content-Type: application/octet-stream",
        f"{url}/v2/images/{by_curl}/file",
    ])
    assert done.stdout.strip() in ("204", b"204")
    mimeo.assert_complete(by_curl, data)


def test_downloads_from_the_nearest_copy(cloud, mimeo, gateway, through, images):
    """With `reads = "nearest"` Glance grants the download and a store gives the bits, whole or in part; without any copy
    that answers, Glance gives them."""
    through_it = through(gateway(gateway={"reads": "nearest"}))
    data = os.urandom(20 * MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    sent = cloud.glance.bytes_sent(f"/v2/images/{image}/file")
    whole = through_it.raw("GET", f"/images/{image}/file")
    assert (whole.status_code, whole.content == data) == (200, True)
    part = through_it.raw("GET", f"/images/{image}/file", headers={"Range": "bytes=1000-70999"})
    assert (part.status_code, part.content == data[1000:71000]) == (206, True)
    assert cloud.glance.bytes_sent(f"/v2/images/{image}/file") - sent < len(data) // 2
    for server in cloud.nginx:
        server.stop()
    assert through_it.download(image) == data


def test_who_may_not_download_gets_no_bits_from_a_copy(mimeo, gateway, through, images):
    """Glance's refusal is the answer, though copies are there: another project's private image, a deactivated one for a
    member, a bad token."""
    url = gateway(gateway={"reads": "nearest"})
    image = images.create(os.urandom(MiB), visibility="private")
    mimeo.wait_registered(image)
    member = through(url).as_user("alice")
    assert member.raw("GET", f"/images/{image}/file").status_code == 404
    assert requests.get(f"{url}/v2/images/{image}/file", headers={"X-Auth-Token": "no"}, timeout=30).status_code == 401
    own = images.as_user("alice").create(os.urandom(1000))
    mimeo.wait_registered(own)
    images.deactivate(own)
    assert member.raw("GET", f"/images/{own}/file").status_code == 403


def test_tls_and_a_second_glance_api_when_the_first_is_gone(cloud, mimeo, gateway, images, tmp_path):
    """HTTPS with the operator's certificate; of two upstreams one answers no connections: every request, uploads too,
    goes to the other."""
    certificate, key = tmp_path / "gateway.pem", tmp_path / "gateway.key"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate])
    upstream = [f"http://127.0.0.1:{free_port()}", cloud.glance.url]
    url = gateway(gateway={"certificate": str(certificate), "key": str(key), "upstream": upstream})
    secure = url.replace("http:", "https:")
    headers = {"X-Auth-Token": images.keystone.token("admin").value}
    for _ in range(4):
        assert requests.get(f"{secure}/v2/images", headers=headers, verify=certificate, timeout=30).status_code == 200
        image, data = images.record(), os.urandom(100_000)
        answer = requests.put(
            f"{secure}/v2/images/{image}/file", data=data, verify=certificate, timeout=60,
            headers={**headers, "Content-Type": "application/octet-stream"},
        )
        assert (answer.status_code, answer.headers["X-Mimeo-Replicas"]) == (204, "3/3")
        mimeo.assert_complete(image, data)


def test_a_gateway_that_leads_to_itself_is_refused(mimeo):
    """The mistake is told with its key and its cure."""
    mimeo.configure(gateway={"listen": "127.0.0.1:9292", "upstream": ["http://127.0.0.1:9292"], "ack": "most"})
    code, _, said = mimeo.run("serve")
    assert code == 2
    assert "gateway.upstream" in said and "is the gateway itself" in said
    assert 'gateway.ack: unknown value "most"; known: all, none' in said
