"""A wire that breaks on command: a TCP proxy in front of any server, whose faults are switched while it runs.

    wire.fault("cut", UP, after=100_000)       resets both sides, in the middle of what the client sends
    wire.fault("stall", DOWN, after=100_000)   nothing more arrives, and nobody hangs up
    wire.fault("truncate", DOWN, after=...)    the rest is swallowed, and the stream ends in good order
    wire.fault("corrupt", UP, after=...)       one bit of the byte behind is another
    wire.fault("late", DOWN, seconds=3)        the server has it at once, and its answer comes so much later
    wire.heal()                                all is well again, also for what was stalled

UP is what the client sends, DOWN what the server answers. `after` counts the bytes of each connection in that direction
from when the fault was set.
"""

import asyncio
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from .base import eventually, free_port, listens, run

UP, DOWN = "up", "down"
PIECE = 64 * 1024
LULL = 0.05  # seconds without a byte, after which what comes is another answer


@dataclass(frozen=True)
class WireFault:
    kind: str
    direction: str
    after: int
    seconds: float


class Broken(Exception):
    """This connection is to be reset."""


class Wire:
    def __init__(self, target: int, port: int | None = None):
        self.target = target
        self.port = port or free_port()
        self.hits = 0  # how often a fault was met
        self._fault: WireFault | None = None
        self._loop = asyncio.new_event_loop()
        self._healed = asyncio.Event()
        self._links: set[asyncio.Task] = set()  # the loop itself does not keep those that wait
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        eventually(lambda: listens(self.port), 10, f"the wire to port {target} is there")

    def fault(self, kind: str, direction: str = UP, after: int = 0, seconds: float = 0) -> None:
        self.hits = 0
        self._fault = WireFault(kind, direction, after, seconds)

    def heal(self) -> None:
        self._fault = None
        self._loop.call_soon_threadsafe(self._let_go)

    def cut(self) -> None:
        """Resets what is stalled, and whatever comes."""
        self.fault("cut", DOWN)
        self._loop.call_soon_threadsafe(self._let_go)

    def stop(self) -> None:
        self.heal()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _let_go(self) -> None:
        waiting, self._healed = self._healed, asyncio.Event()
        waiting.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", self.port))
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sides, link = [writer], asyncio.current_task()
        self._links.add(link)
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self.target)
            sides.append(there)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, there, UP))
                both.create_task(self._pass_on(there_reader, writer, DOWN))
        except* (Broken, OSError):
            for side in sides:
                reset(side)
        finally:
            for side in sides:
                side.close()
            self._links.discard(link)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        fault, passed, last = None, 0, 0.0
        while data := await reader.read(PIECE):
            if self._fault is not fault:
                fault, passed = self._fault, 0
            if fault and fault.direction == direction:
                lull = self._loop.time() - last > LULL
                data = await self._suffer(fault, passed, data, lull)
                if data is None:
                    break
            passed += len(data)
            last = self._loop.time()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        while await reader.read(PIECE):
            pass  # swallowed

    async def _suffer(self, fault: WireFault, passed: int, data: bytes, lull: bool) -> bytes | None:
        """What becomes of a piece; None: nothing follows any more."""
        at = fault.after - passed
        if fault.kind == "late":
            if lull:
                self.hits += 1
                await asyncio.sleep(fault.seconds)
            return data
        if at >= len(data):
            return data
        self.hits += at >= 0
        match fault.kind:
            case "cut":
                raise Broken
            case "stall":
                await self._healed.wait()
                if self._fault and self._fault.kind == "cut":
                    raise Broken
            case "truncate":
                return None
            case "corrupt" if at >= 0:
                return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        return data


def reset(side: asyncio.StreamWriter) -> None:
    """Ends it with a reset, as a firewall or a dying machine does."""
    connection = side.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.transport.abort()


def detour(wire: Wire, directory: Path) -> dict[str, str]:
    """The environment in which a program takes the wire where it means the port behind it. For a peer that tells its
    clients where it is (Ceph), and hangs up on those who looked for it elsewhere."""
    library = directory / "detour.so"
    run(["cc", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("detour.c")])
    return {"LD_PRELOAD": str(library), "DETOUR_FROM": str(wire.target), "DETOUR_TO": str(wire.port)}
