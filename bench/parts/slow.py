"""What a slow store costs the others: two fast ones, alone and beside one that takes 1 MB/s.

The slow one reads only so much from its socket, so that the pressure comes back to Mimeo as from a thin link. Nobody
waits for it: two images are made, one after the other, and are deleted once the fast ones have them. With the first Mimeo
learns that the store is slow.
"""

from ..content import stream
from ..lab import Lab
from ..processes import Watch
from ..report import Report, Sample, Samples, compared
from ..upload import create
from ..watchdog import limit, patience, say

from cloud.fault import FaultyStore

TITLE = "Slow: a store of 1 MB/s beside two fast ones"
ALONE, BESIDE = "two fast stores alone", "the same two, beside a slow one"
WHICH = ("the first image", "the next image")
RATE = 1_000_000  # bytes per second


def run(lab: Lab, options) -> Report:
    mib = options.middle_size
    samples = Samples()
    for round_ in range(options.rounds):
        for case in (ALONE, BESIDE):
            with limit(patience(4 * mib), case):
                samples.extend(measure(lab, case, round_, mib))
    return report(samples, mib)


def measure(lab: Lab, case: str, round_: int, mib: int) -> list[Sample]:
    fast, slow, samples = lab.cloud.nginx[:2], [], []
    if case == BESIDE:
        slow = [FaultyStore(lab.scratch / "slow", lab.cloud.fault_ports[0])]
        slow[0].fault("PUT", "rate", RATE)
    try:
        with lab.mimeo([*fast, *slow]) as program:
            images = []
            for which in WHICH:
                watch = Watch([program.process.pid])
                images.append(create(lab.cloud.images, "bench", mib, stream(mib)))
                watch.begin()
                lab.sight.wait_mimeo({images[-1]: {"http1", "http2"}})
                usage = watch.usage()
                more = {"slow is done": "http3" in lab.sight.mimeo_stores(images[-1])}
                say(f"slow, round {round_ + 1}: {case}, {which}: {usage.seconds:.2f} s")
                samples.append(Sample(f"{case}: {which}", round_, mib, usage.seconds, None, usage.cpu, usage.memory, None, more))
            for image in images:
                lab.cloud.images.delete(image)
    finally:
        for server in slow:
            server.stop()
            for path in server.objects.iterdir():
                path.unlink(missing_ok=True)
    return samples


def report(samples: Samples, mib: int) -> Report:
    rows = []
    for case, found in samples.cases().items():
        usual = found.usual_row()
        rows.append({
            "": case, "seconds": usual["seconds"], "spread": found.series("seconds").spread(),
            **{key: usual[key] for key in ("CPU s/GiB", "peak memory MiB")},
        })
    shows = []
    for which in WHICH:
        ratio = compared(samples, "seconds", f"{BESIDE}: {which}", f"{ALONE}: {which}")
        shows.append(f"Beside a slow store, the fast ones have {which} in {ratio.full()} × the time.")
    if any(sample.more["slow is done"] for sample in samples):
        shows.append("The slow store was done as well: the image is too small to show anything.")
    return Report(f"{TITLE} ({mib} MiB)", rows, shows, [], samples)
