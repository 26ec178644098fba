"""Eight images at once to three stores: what memory that takes.

Glance takes uploads more slowly than Mimeo copies, so images that come one by one would not meet. Mimeo is therefore
stopped while they are uploaded; its queue keeps the events. The time is from its start to the last registration.
"""

import time
from concurrent.futures import ThreadPoolExecutor

from ..content import MIB, stream
from ..floor import floor
from ..lab import Lab
from ..processes import cpu_clock, peak_memory
from ..report import Report, Sample, Samples
from ..upload import create
from ..watchdog import limit, patience, say

TITLE = "Concurrent: eight images at once to three stores"
IMAGES, STORES = 8, 3


def run(lab: Lab, options) -> Report:
    mib = options.middle_size
    if not lab.has_room(IMAGES * (STORES + 1) * mib, "eight images at once"):
        raise RuntimeError("not enough memory for this size: see --middle-size")
    samples = Samples()
    for round_ in range(options.rounds):
        with limit(patience(IMAGES * (STORES + 1) * mib), TITLE):
            samples.append(measure(lab, round_, mib))
    return report(samples, mib)


def measure(lab: Lab, round_: int, mib: int) -> Sample:
    servers = lab.cloud.nginx[:STORES]
    with lab.mimeo(servers, serve=False) as program:
        with ThreadPoolExecutor(2) as pool:
            uploads = [
                pool.submit(create, lab.cloud.images, f"image-{n}", mib, stream(mib)) for n in range(IMAGES)
            ]
            images = [upload.result() for upload in uploads]
        wanted = {image: set(program.stores) for image in images}
        begun = time.monotonic()
        program.start()
        lab.sight.wait_mimeo(wanted)
        seconds, pid = time.monotonic() - begun, program.process.pid
        cpu, memory = cpu_clock(pid), peak_memory(pid)
        lab.sight.confirm_mimeo(wanted)
        reads = sum(lab.source_reads(image, mib) for image in images) / IMAGES
    least = floor([lab.glance_file(image) for image in images], servers).seconds
    for image in images:
        lab.cloud.images.delete(image)
    say(f"concurrent, round {round_ + 1}: {seconds:.2f} s, peak {memory / MIB:.1f} MiB")
    return Sample("all", round_, IMAGES * mib, seconds, least, cpu, memory, reads)


def report(samples: Samples, mib: int) -> Report:
    rows = [{"images": f"{IMAGES} × {mib} MiB", **samples.usual_row()}]
    peak = max(samples.series("memory").values) / MIB
    shows = [f"Peak memory with eight transfers at once: {peak:.1f} MiB (the bound is 128)."]
    notes = ["The floor: all images hashed on all cores, or all 24 plain uploads at once, whichever is slower."]
    return Report(TITLE, rows, shows, notes, samples)
