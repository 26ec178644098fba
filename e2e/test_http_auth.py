"""An HTTP store whose server asks who writes: real nginx with TLS, client certificates and passwords, Apache with
passwords and no directory yet, and a forward proxy. Neither Glance nor Mimeo takes part, only the store's adapter."""

import base64
import hashlib
import socket
import subprocess
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from cloud.apache import MODULES, Apache
from cloud.base import free_port
from cloud.nginx import Nginx
from test_conformance import PROGRAM, conforms

USER, PASSWORD, TOKEN = "mimeo", "s3cret/of:the store", "t0ken-of-the-store"


def password_file(path) -> None:
    """As htpasswd writes it, in a form that both nginx and Apache read."""
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    path.write_text(f"{USER}:{{SHA}}{digest}\n")
    path.chmod(0o644)


class Guarded(Nginx):
    """Writes at `url` want a certificate of the CA, and the password or the token; reads at `read_url`, another
    server, want nothing and note whether they were sent credentials. `open_url` wants the password for writing alone,
    and `/asking/` for everything."""

    def __init__(self, parent, name, pki):
        self.pki, self.tls_port, self.read_port = pki, free_port(), free_port()
        super().__init__(parent, name)
        password_file(self.dir / "htpasswd")
        self.open_url = self.url
        self.url = f"https://127.0.0.1:{self.tls_port}/images/"
        self.read_url = f"https://127.0.0.1:{self.read_port}/images/"
        self.read_log = self.dir / "reads.log"

    def _conf(self):
        tls = f"ssl_certificate {self.pki}/server.pem; ssl_certificate_key {self.pki}/server.key;"
        basic = f'auth_basic "images"; auth_basic_user_file {self.dir}/htpasswd;'
        dav = "dav_methods PUT DELETE; create_full_put_path on;"
        more = f"""
    map $http_authorization $authorised {{ default 0; "Bearer {TOKEN}" 1; }}
    log_format reads '$request_method "$http_authorization" "$ssl_client_s_dn"';
    server {{
        listen 127.0.0.1:{self.tls_port} ssl;
        root {self.data};
        {tls}
        ssl_client_certificate {self.pki}/ca.pem;
        ssl_verify_client on;
        location / {{ {dav} {basic} }}
        location /by-token/ {{ alias {self.objects}/; {dav} if ($authorised = 0) {{ return 401; }} }}
    }}
    server {{
        listen 127.0.0.1:{self.read_port} ssl;
        root {self.data};
        {tls}
        ssl_client_certificate {self.pki}/ca.pem;
        ssl_verify_client optional;
        access_log {self.dir}/reads.log reads;
        location /elsewhere/ {{ return 307 http://127.0.0.1:{self.port}/images/elsewhere; }}
    }}
"""
        plain = super()._conf().replace(
            "dav_methods PUT DELETE; create_full_put_path on;", f"{dav} limit_except GET HEAD {{ {basic} }} }}"
            f"location /asking/ {{ alias {self.objects}/; {dav} {basic}"
        )
        assert basic in plain
        head, end = plain.rstrip().rsplit("}", 1)
        return head + more + "}\n" + end


@pytest.fixture(scope="module")
def nginx(tmp_path_factory, pki):
    server = Guarded(tmp_path_factory.mktemp("guarded"), "nginx", pki)
    server.start()
    yield server
    server.stop()


def refused(*arguments: str) -> str:
    """What the program says when the store does not take it; never a secret."""
    done = subprocess.run([PROGRAM, "store", "http", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0, "it was let in"
    said = done.stdout + done.stderr
    for secret in (PASSWORD, TOKEN, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()):
        assert secret not in said
    return said


def certificates(pki, client="client", ca="ca"):
    return f"ca_file={pki}/{ca}.pem", f"cert_file={pki}/{client}.pem", f"key_file={pki}/{client}.key"


BASIC = (f"user={USER}", f"password={PASSWORD}")


def test_certificate_and_password_are_shown_where_it_writes_and_nowhere_else(nginx, pki):
    conforms("store", "http", nginx.url, f"read_url={nginx.read_url}", *BASIC, *certificates(pki))
    assert not list(nginx.objects.iterdir())
    reads = set(nginx.read_log.read_text().splitlines())
    assert reads == {'GET "-" "-"', 'HEAD "-" "-"'}, "reads are Glance's reads: no password, no certificate"


def test_a_token_is_taken_in_place_of_a_password(nginx, pki):
    url = nginx.url.replace("/images/", "/by-token/")
    conforms("store", "http", url, f"read_url={nginx.read_url}", f"token={TOKEN}", *certificates(pki))
    said = refused(url, f"read_url={nginx.read_url}", "token=wrong", *certificates(pki))
    assert "StoreRefused" in said and "user and password, or the token" in said


def test_a_server_that_lets_everybody_read_needs_no_read_url(nginx):
    conforms("store", "http", nginx.open_url, *BASIC)
    said = refused(nginx.open_url, f"user={USER}", "password=wrong")
    assert "StoreRefused" in said and "user and password, or the token" in said


def test_a_server_that_asks_readers_too_needs_a_read_url_and_says_so(nginx):
    url = nginx.open_url.replace("/images/", "/asking/")
    said = refused(url, *BASIC)
    assert "answered 401" in said and "name a read_url" in said
    conforms("store", "http", url, *BASIC, f"read_url={nginx.open_url}")


def test_who_is_not_believed_gets_nothing(nginx, pki):
    read_url = f"read_url={nginx.read_url}"
    said = refused(nginx.url, read_url, *BASIC, *certificates(pki, ca="other-ca"))
    assert "StoreUnreachable" in said and "UnknownIssuer" in said
    for shown in (certificates(pki, client="stranger"), certificates(pki)[:1]):
        assert "answered 400" in refused(nginx.url, read_url, *BASIC, *shown)


def test_a_key_of_another_certificate_is_found_before_anything_is_sent(nginx, pki):
    mixed = f"cert_file={pki}/client.pem", f"key_file={pki}/stranger.key"
    assert "is not the key of the certificate in cert_file" in refused(nginx.url, *mixed)


def test_credentials_follow_no_redirect(nginx, pki):
    before = len(nginx.requests("PUT"))
    elsewhere = nginx.read_url.replace("/images/", "/elsewhere/")
    said = refused(elsewhere, f"read_url={nginx.read_url}", *BASIC, *certificates(pki))
    assert "StoreError" in said and "redirected" in said
    assert len(nginx.requests("PUT")) == before


class Guarding(Apache):
    """A directory that is not there yet, in which reading is free."""

    def _conf(self):
        loads = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n"
                        for name in ("authn_core", "authn_file", "auth_basic", "authz_user"))
        guard = f"""Dav On
    AuthType Basic
    AuthName images
    AuthUserFile {self.dir}/htpasswd
    <LimitExcept GET HEAD>
        Require valid-user
    </LimitExcept>"""
        return loads + super()._conf().replace("Dav On\n    Require all granted", guard)


def test_a_directory_that_is_not_there_is_made(open_path):
    apache = Guarding(open_path)
    password_file(apache.dir / "htpasswd")
    apache.start()
    try:
        url = apache.url + "a/b/c/"
        assert "resumes" in conforms("store", "http", url, *BASIC)
        assert (apache.objects / "a/b/c").is_dir()
        assert not list((apache.objects / "a/b/c").iterdir())
    finally:
        apache.stop()


class Proxy(BaseHTTPRequestHandler):
    """A forward proxy: passes HTTP on, and makes tunnels for HTTPS. It wants a password of its own."""

    protocol_version = "HTTP/1.1"
    wanted = "Basic " + base64.b64encode(b"proxied:pr0xy").decode()

    def begins(self) -> bool:
        known = self.headers.get("Proxy-Authorization") == self.wanted
        self.server.seen.append((self.command, self.path, self.headers.get("Authorization")))
        if not known:
            self.close_connection = True
            self.send_error(407)
        return known

    def do_CONNECT(self):
        if not self.begins():
            return
        host, port = self.path.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as server:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self.pump, args=(server, self.connection), daemon=True)
            back.start()
            self.pump(self.connection, server)
            back.join()
        self.close_connection = True

    @staticmethod
    def pump(source, sink):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def passes_on(self):
        if not self.begins():
            return
        url = urlsplit(self.path)
        server = HTTPConnection(url.hostname, url.port)
        hop_by_hop = ("proxy-authorization", "proxy-connection", "connection", "transfer-encoding")
        headers = {key: value for key, value in self.headers.items() if key.lower() not in hop_by_hop}
        chunked = "Transfer-Encoding" in self.headers
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        try:
            body = self.body(chunked) if chunked or self.headers.get("Content-Length") else None
            server.request(self.command, url.path, body, headers, encode_chunked=chunked)
            answer = server.getresponse()
            bits = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("connection", "transfer-encoding", "server", "date"):
                    self.send_header(key, value)
            self.end_headers()
            self.wfile.write(bits)
        except OSError:
            self.close_connection = True
        finally:
            server.close()

    do_PUT = do_GET = do_HEAD = do_DELETE = do_MKCOL = passes_on

    def body(self, chunked: bool):
        left = None if chunked else int(self.headers["Content-Length"])
        while True:
            if chunked:
                line = self.rfile.readline()
                if not line:
                    raise OSError("cut off")
                size = int(line, 16)
                piece = self.rfile.read(size)
                self.rfile.readline()
            else:
                piece = self.rfile.read1(min(left, 1 << 16)) if left else b""
                if left and not piece:
                    raise OSError("cut off")
                left -= len(piece)
            if not piece:
                return
            yield piece

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads, server.seen = True, []
    server.url = f"http://proxied:pr0xy@127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_everything_goes_through_the_proxy(nginx, proxy):
    conforms("store", "http", nginx.open_url, *BASIC, f"proxy={proxy.url}")
    methods = {method for method, url, _ in proxy.seen if url.startswith(nginx.open_url)}
    assert methods == {"HEAD", "PUT", "GET", "DELETE"}
    reads = [login for method, url, login in proxy.seen if method == "GET"]
    assert reads and not any(reads), "reads are Glance's reads"


def test_a_tunnel_hides_the_password_from_the_proxy_and_a_read_url_needs_none(nginx, pki, proxy):
    conforms("store", "http", nginx.url, f"read_url={nginx.read_url}", *BASIC, *certificates(pki),
             f"proxy={proxy.url}")
    assert set(proxy.seen) == {("CONNECT", f"127.0.0.1:{nginx.tls_port}", None)}


def test_a_proxy_that_refuses_is_told_without_its_password(nginx, proxy):
    said = refused(nginx.open_url, *BASIC, f"proxy={proxy.url.replace('pr0xy', 'wr0ng')}")
    assert "StoreRefused" in said and "the store's proxy" in said and "wr0ng" not in said


def test_the_environments_proxy_is_not_used(nginx):
    nobody = f"http://127.0.0.1:{free_port()}"
    conforms("store", "http", nginx.open_url, *BASIC, http_proxy=nobody, https_proxy=nobody, ALL_PROXY=nobody)
