"""What a process used: CPU time, peak memory, and bytes read, as the kernel counts them.

CPU time is read from the process's own clock, in nanoseconds: the usual counters tick in hundredths of a second, which
is too coarse for a small image. Peak memory is VmHWM and not `ru_maxrss`: the latter begins with the size of whoever
started the process, here a Python larger than curl.
"""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLING = 0.01  # seconds between two looks at the peak memory of a command: its last moments may be missed
LOOKS_PER_FAMILY = 10  # a look for the processes that a command started comes with each tenth of these


@dataclass
class Usage:
    seconds: float
    cpu: float  # seconds
    memory: int  # bytes, summed over the processes (at the peak of each)
    read: int  # bytes that all its read calls brought


def cpu_clock(pid: int) -> float:
    """All CPU time of a process, of ended threads too (see clock_getcpuclockid(3) for the number)."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_memory(pid: int) -> int:
    """Bytes; 0 once the process has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def bytes_read(pid: int) -> int:
    return _counter(pid, "rchar")


def bytes_written_to_disk(pid: int) -> int:
    return _counter(pid, "write_bytes")


def _counter(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith(f"{name}: "):
            return int(line.split()[1])
    raise KeyError(name)


def cpu_of_ended_children(pid: int) -> float:
    """All CPU time of the processes that it started and waited for: ssh is one of sftp's."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Those that it started itself and that are there now, from the kernel's own short list."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def with_children(pid: int) -> list[int]:
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


class Watch:
    """What running processes use from now on. The peak of memory is forgotten first, so that it is this work's own."""

    def __init__(self, pids: list[int]):
        self.pids = pids
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._cpu = {pid: cpu_clock(pid) for pid in pids}
        self._read = {pid: bytes_read(pid) for pid in pids}
        self.begin()

    def begin(self) -> None:
        """The seconds count from here, if not from the beginning."""
        self._begun = time.monotonic()

    def usage(self) -> Usage:
        seconds = time.monotonic() - self._begun
        cpu = sum(cpu_clock(pid) - before for pid, before in self._cpu.items())
        memory = sum(peak_memory(pid) for pid in self.pids)
        read = sum(bytes_read(pid) - before for pid, before in self._read.items())
        return Usage(seconds, cpu, memory, read)


def run_at_once(*commands: list, env: dict[str, str] | None = None) -> Usage:
    """Starts the commands together and waits for all. A failure of one ends the others and is raised. CPU and memory
    are with those of the processes that they start."""
    begun = time.monotonic()
    started = [_start(command, env) for command in commands]
    peaks = _Peaks([process.pid for process in started])
    try:
        for process in started:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays to be asked
        seconds = time.monotonic() - begun
        pids = [process.pid for process in started]
        cpu = sum(map(cpu_clock, pids)) + sum(map(cpu_of_ended_children, pids))
        usage = Usage(seconds, cpu, peaks.end(), sum(map(bytes_read, pids)))
        for process, command in zip(started, commands):
            _, errors = process.communicate()
            if process.returncode != 0:
                raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{errors[-2000:]}")
        return usage
    finally:
        peaks.end()
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


def _start(command: list, env: dict[str, str] | None) -> subprocess.Popen:
    return subprocess.Popen(
        [str(word) for word in command], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )


class _Peaks(threading.Thread):
    """Looks at VmHWM while the commands run: it is gone when a process ends. Children are looked for less often."""

    def __init__(self, pids: list[int]):
        super().__init__(daemon=True)
        self.pids = pids
        self.peaks = dict.fromkeys(pids, 0)
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        looks = 0
        while not self._over.wait(SAMPLING):
            looks += 1
            if looks % LOOKS_PER_FAMILY == 0:
                self._look_for_children()
            for pid in self.peaks:
                try:
                    self.peaks[pid] = max(self.peaks[pid], peak_memory(pid))
                except OSError:
                    pass  # ended, and asked for its result already

    def _look_for_children(self) -> None:
        for pid in self.pids:
            try:
                for child in children(pid):
                    self.peaks.setdefault(child, 0)
            except OSError:
                pass  # it, or one of its threads, has ended

    def end(self) -> int:
        self._over.set()
        self.join()
        return sum(self.peaks.values())
