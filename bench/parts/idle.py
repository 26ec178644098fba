"""What an idle daemon costs: connected to everything, with twenty images in place and nothing to do."""

import time
from pathlib import Path

from ..content import MIB
from ..lab import Lab
from ..processes import cpu_clock, peak_memory
from ..report import Report, Sample, Samples
from ..watchdog import limit, say

TITLE = "Idle: a daemon with nothing to do"
IMAGES, STORES = 20, 3
CALM = 5  # seconds after the last registration


def run(lab: Lab, options) -> Report:
    with limit(300 + options.idle_seconds, TITLE), lab.mimeo(lab.cloud.nginx[:STORES]) as program:
        images = [lab.cloud.images.create(bytes([n + 1]) * 4096, f"idle-{n}") for n in range(IMAGES)]
        wanted = {image: set(program.stores) for image in images}
        lab.sight.wait_mimeo(wanted)
        time.sleep(CALM)
        pid = program.process.pid
        cpu, switches, begun = cpu_clock(pid), voluntary_switches(pid), time.monotonic()
        time.sleep(options.idle_seconds)
        seconds = time.monotonic() - begun
        cpu, after = cpu_clock(pid) - cpu, voluntary_switches(pid)
        memory = peak_memory(pid)
    for image in images:
        lab.cloud.images.delete(image)
    # A thread that ended meanwhile takes its count with it; a new one brings its own.
    wakes = sum(count - switches.get(thread, 0) for thread, count in after.items()) / seconds
    sample = Sample("idle", 0, 0, seconds, None, cpu, memory, None, {"wake-ups per second": wakes})
    say(f"idle: {cpu * 3600 / seconds:.2f} CPU s per hour, {wakes:.1f} wake-ups per second")
    row = {
        "images": str(IMAGES), "seconds watched": f"{seconds:.0f}", "CPU s per hour": f"{cpu * 3600 / seconds:.2f}",
        "wake-ups per second": f"{wakes:.1f}", "peak memory MiB": f"{memory / MIB:.1f}",
    }
    shows = [f"An idle daemon takes {100 * cpu / seconds:.3f} % of one core, with the default settings."]
    notes = ["Wake-ups are voluntary context switches of all its threads."]
    return Report(TITLE, [row], shows, notes, Samples([sample]))


def voluntary_switches(pid: int) -> dict[str, int]:
    """By thread."""
    found = {}
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:
            continue  # it has just ended
        found[status.parent.name] = next(
            int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches")
        )
    return found
