"""A store that breaks on command. No real web server stalls, lies or forgets when asked to, so this one is ours: a
small threaded HTTP server over a directory, whose faults are switched while it runs.

    store.fault("PUT", "status", 507)      answers so after it has read the body
    store.fault("PUT", "stall")            reads a little and then nothing, and never answers
    store.fault("PUT", "close")            hangs up half way
    store.fault("PUT", "truncate")         says 201 and keeps a part
    store.fault("PUT", "rate", 1_000_000)  reads that many bytes a second
    store.fault("GET", "corrupt")          right size, one byte wrong
    store.fault("GET", "hold")             keeps the next read waiting until `release`, and only that one
    store.fault("HEAD", "hang")            never answers
    store.fault("HEAD", "delay", 3)        answers that many seconds late
    store.down()                           refuses connections
    store.heal()                           all is well again

A fault may be limited to callers whose User-Agent contains `agent`: Glance's is python-requests.
"""

import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK = 64 * 1024


@dataclass
class Fault:
    kind: str
    value: float = 0
    agent: str = ""


@dataclass
class Seen:
    method: str
    name: str
    agent: str


class FaultyStore:
    def __init__(self, directory: Path, port: int):
        self.objects = directory
        self.objects.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"
        self.seen: list[Seen] = []
        self._faults: dict[str, Fault] = {}
        self._healed = threading.Event()  # wakes whatever a fault keeps waiting
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.up()

    def fault(self, method: str, kind: str, value: float = 0, agent: str = "") -> None:
        self._faults[method] = Fault(kind, value, agent)

    def heal(self) -> None:
        self._faults.clear()
        self.release()
        self.up()

    def release(self) -> None:
        """Lets go of everything that waits; faults that are set stay."""
        waiting, self._healed = self._healed, threading.Event()
        waiting.set()

    def up(self) -> None:
        if self._server:
            return
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _Handler, bind_and_activate=False)
        server.allow_reuse_address = True
        server.request_queue_size = 128
        server.daemon_threads = True
        server.store = self
        server.server_bind()
        server.server_activate()
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def down(self) -> None:
        if not self._server:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self) -> None:
        self.release()
        self.down()

    def requests(self, method: str, name: str = "", agent: str = "") -> list[Seen]:
        return [s for s in list(self.seen) if s.method == method and name in s.name and agent in s.agent]

    def fault_for(self, method: str, agent: str) -> Fault | None:
        fault = self._faults.get(method)
        if fault is None or fault.agent not in agent:
            return None
        if fault.kind == "hold":
            self._faults.pop(method, None)
        return fault

    def has(self, fault: Fault) -> bool:
        """Whether a fault met at the beginning of a request is still in force."""
        return fault in self._faults.values()

    def wait_until_healed(self) -> None:
        self._healed.wait(300)

class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ThreadingHTTPServer

    def setup(self):
        super().setup()
        self.store._open.add(self.connection)

    def finish(self):
        self.store._open.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def handle(self):
        try:
            super().handle()
        except (OSError, ValueError):
            pass  # the other side went away

    def log_message(self, *_):
        pass

    @property
    def store(self) -> FaultyStore:
        return self.server.store

    @property
    def file(self) -> Path:
        return self.store.objects / Path(self.path.split("?")[0]).name

    def begin(self) -> Fault | None:
        """Notes the request, and lives through the faults that come before any answer."""
        agent = self.headers.get("User-Agent", "")
        self.store.seen.append(Seen(self.command, self.file.name, agent))
        fault = self.store.fault_for(self.command, agent)
        if fault and fault.kind == "delay":
            time.sleep(fault.value)
        if fault and fault.kind in ("hang", "hold"):
            self.store.wait_until_healed()
        if fault and fault.kind == "hang":
            raise OSError("never answered")
        return fault

    def answer(self, status: int, length: int = 0, **headers):
        self.send_response(status)
        for key, value in {"Content_Length": str(length), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def body(self):
        """The request's body in pieces, whether its length is told or it comes in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read1(min(CHUNK, left))
            if not piece:
                raise OSError("the body ended early")
            left -= len(piece)
            yield piece

    def do_PUT(self):
        fault = self.begin()
        kind = fault.kind if fault else ""
        part = self.file.with_name(f".{self.file.name}.{threading.get_ident()}")
        length = int(self.headers.get("Content-Length", 0))
        taken = 0
        try:
            with part.open("wb") as out:
                for piece in self.body():
                    out.write(piece)
                    taken += len(piece)
                    if kind == "rate" and self.store.has(fault):
                        time.sleep(len(piece) / fault.value)
                    if kind == "close" and taken >= length / 2:
                        raise OSError("hung up")
                    if kind == "stall" and taken >= min(length, 4 * CHUNK):
                        self.store.wait_until_healed()
                        raise OSError("stalled")
                if kind == "truncate":
                    out.truncate(taken // 2)
            if kind == "status":
                self.answer(int(fault.value))
                return
            existed = self.file.exists()
            part.rename(self.file)
            self.answer(204 if existed else 201)
        finally:
            part.unlink(missing_ok=True)

    def do_HEAD(self):
        self._read(send=False)

    def do_GET(self):
        self._read(send=True)

    def _read(self, send: bool):
        fault = self.begin()
        if fault and fault.kind == "status":
            self.answer(int(fault.value))
            return
        if not self.file.is_file():
            self.answer(404)
            return
        data = self.file.read_bytes()
        if fault and fault.kind == "corrupt" and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]
        wanted = self.headers.get("Range")
        if send and wanted and wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), int(last or len(data) - 1)
            part = data[begin:end + 1]
            self.answer(206, len(part), Content_Range=f"bytes {begin}-{begin + len(part) - 1}/{len(data)}")
            self.wfile.write(part)
            return
        self.answer(200, len(data), Accept_Ranges="bytes")
        if send:
            self.wfile.write(data)

    def do_DELETE(self):
        fault = self.begin()
        if fault and fault.kind == "status":
            self.answer(int(fault.value))
        elif self.file.is_file():
            self.file.unlink()
            self.answer(204)
        else:
            self.answer(404)
