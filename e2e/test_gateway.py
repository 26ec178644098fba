"""The gateway: uploads are in every store when the client is answered, and a proxy is all that it is otherwise."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
from urllib.parse import urlsplit

import pytest
import requests

from cloud.base import always, eventually, free_port, run
from cloud.images import PATCH_TYPE, Images
from test_limits import RELOADED, reload, told

MiB = 1 << 20
IMAGE_OPTIONS = ("--disk-format", "raw", "--container-format", "bare")


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


def test_a_stop_lets_a_running_upload_end(mimeo, gateway, through, images):
    """SIGTERM in mid-upload: no new connection is taken, the upload ends with 204 and its replicas are registered before
    Mimeo ends. Who has sent only a part of a request's head is not waited for."""
    url = gateway(gateway={"stop_timeout": "60s"})
    image, parts = images.record(), [os.urandom(MiB) for _ in range(8)]

    def body():
        for number, part in enumerate(parts):
            yield part
            if number == 3:
                os.kill(mimeo.process.pid, signal.SIGTERM)
                eventually(lambda: refuses(url), 30, "the gateway takes nobody new")

    with connect(url) as half:
        half.sendall(b"GET /v2/images HTTP/1.1\r\nHost: gla")
        answer = upload(through(url), image, body())
        assert (answer.status_code, answer.headers["X-Mimeo-Replicas"]) == (204, "3/3")
        assert mimeo.process.wait(timeout=40) == 0
    mimeo.assert_complete(image, b"".join(parts))


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname, parts.port


def connect(url: str) -> socket.socket:
    return socket.create_connection(address(url), timeout=30)


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


def test_what_was_staged_is_not_read_again(cloud, mimeo, gateway, through, images):
    """The stores have what is staged when the client has its answer or soon after it, and nothing is registered. The
    import makes the image of it: proven and registered, and no byte read from Glance. A staged image that is deleted
    leaves nothing."""
    through_it = through(gateway(scan={"interval": "1h"}))
    data, image, other = os.urandom(8 * MiB), images.record(), images.record()
    for staged in (image, other):
        through_it.stage(staged, data)
        eventually(lambda i=staged: len(copies(mimeo, i)) == 3, 30, "every store has it")
    eventually(lambda: {it["state"] for it in mimeo.status(image)["replicas"]} == {"stored"}, 30, "all are closed")
    assert (images.show(image)["status"], images.show(image)["locations"]) == ("uploading", [])
    through_it.start_import(image, {"name": "glance-direct"}, ["main", "second"])
    images.wait_status(image, "active")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)
    assert reads_of(cloud, image) == []
    images.delete(other)
    eventually(lambda: not copies(mimeo, other), 60, "nothing of it is left")


def copies(mimeo, image: str) -> list:
    return [path for store in mimeo.stores for path in mimeo.objects(store, image)]


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
    pem, key = certificate(tmp_path, "gateway")
    upstream = [f"http://127.0.0.1:{free_port()}", cloud.glance.url]
    url = gateway(gateway={"certificate": str(pem), "key": str(key), "upstream": upstream})
    secure = url.replace("http:", "https:")
    headers = {"X-Auth-Token": images.keystone.token("admin").value}
    for _ in range(4):
        assert requests.get(f"{secure}/v2/images", headers=headers, verify=pem, timeout=30).status_code == 200
        image, data = images.record(), os.urandom(100_000)
        answer = requests.put(
            f"{secure}/v2/images/{image}/file", data=data, verify=pem, timeout=60,
            headers={**headers, "Content-Type": "application/octet-stream"},
        )
        assert (answer.status_code, answer.headers["X-Mimeo-Replicas"]) == (204, "3/3")
        mimeo.assert_complete(image, data)


def certificate(directory, name: str):
    """A new one, with the name in its subject, in the place of the one before."""
    files = directory / "gateway.pem", directory / "gateway.key"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", files[1], "-out", files[0]])
    return files


def test_the_certificate_is_read_anew(mimeo, gateway, tmp_path):
    """SIGHUP: new connections get the new certificate, one that is open goes on. A broken file leaves what is in force."""
    pem, key = certificate(tmp_path, "first")
    secure = gateway(gateway={"certificate": str(pem), "key": str(key)}).replace("http:", "https:")

    def subject() -> str:
        shown = ssl.get_server_certificate(address(secure))
        return run(["openssl", "x509", "-noout", "-subject"], input=shown).stdout

    assert "first" in subject()
    with requests.Session() as session:
        first = shutil.copy(pem, tmp_path / "first.pem")
        assert session.get(secure, timeout=30, verify=first).ok
        certificate(tmp_path, "second")
        reload(mimeo, RELOADED)
        assert "second" in subject()
        pem.write_text("no certificate")
        assert "holds no certificate" in reload(mimeo, "not renewed")[0]
        assert "second" in subject()
        assert session.get(secure, timeout=30, verify=first).ok
    assert not told(mimeo, "only after a restart")


def test_many_connections_that_do_nothing(mimeo, gateway, through, images):
    """Thousands that say nothing, or only begin a request, leave room for an upload and take little memory. One more
    than may be is told so, and let in when another goes."""
    most, (_, hard) = 2000, resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    url = gateway(gateway={"connections": most})
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # What it takes once, it has taken.
    assert upload(through(url), images.record(), b"first", Connection="close").status_code == 204
    before, idle = mimeo.memory(), []
    with contextlib.ExitStack() as open_ones:
        for number in range(most - 1):
            connection = open_ones.enter_context(connect(url))
            if number % 2:
                connection.sendall(b"PUT /v2/images HTTP/1.1\r\nHost: gla")
            idle.append(connection)
        image, data = images.record(), os.urandom(MiB)
        # This one goes with the answer.
        answer = upload(through(url), image, data, Connection="close")
        assert (answer.status_code, answer.headers["X-Mimeo-Replicas"]) == (204, "3/3")
        assert mimeo.memory() - before < 64 * MiB
        with connect(url):
            full = eventually(lambda: refused(url), 10, "one too many is refused")
            assert b"[gateway] connections" in full and b"retry-after: " in full
            idle[0].close()
            eventually(lambda: not refused(url), 10, "there is room again")


def refused(url: str) -> bytes:
    answer = ask(url, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return answer if answer.startswith(b"HTTP/1.1 503") else b""


def test_a_gateway_that_leads_to_itself_is_refused(mimeo):
    """The mistake is told with its key and its cure."""
    mimeo.configure(gateway={"listen": "127.0.0.1:9292", "upstream": ["http://127.0.0.1:9292"], "ack": "most"})
    code, _, said = mimeo.run("serve")
    assert code == 2
    assert "gateway.upstream" in said and "is the gateway itself" in said
    assert 'gateway.ack: unknown value "most"; known: all, none' in said
