"""The case that several parts share: one image to some stores, then its floor, measured with Glance's own copy.

The upload is a stream and the floor comes last, so no more is in memory at a time than Glance's copy and one per store.
"""

from ..content import stream
from ..floor import floor
from ..lab import Lab
from ..processes import Watch, bytes_written_to_disk
from ..report import Sample
from ..upload import create
from ..watchdog import limit, patience, say


def replicate(lab: Lab, case: str, round_: int, mib: int, servers: list) -> Sample:
    with limit(patience((2 + len(servers)) * mib), case):
        with lab.mimeo(servers) as program:
            pid = program.process.pid
            watch = Watch([pid])
            image = create(lab.cloud.images, "bench", mib, stream(mib))
            wanted = {image: set(program.stores)}
            watch.begin()
            lab.sight.wait_mimeo(wanted)
            usage = watch.usage()
            lab.sight.confirm_mimeo(wanted)
            more = {"disk": bytes_written_to_disk(pid)}
            reads = lab.source_reads(image, mib)
        least = floor([lab.glance_file(image)], servers).seconds
        lab.cloud.images.delete(image)
    say(f"{case}, round {round_ + 1}: {usage.seconds:.2f} s, floor {least:.2f} s, CPU {usage.cpu:.2f} s")
    return Sample(case, round_, mib, usage.seconds, least, usage.cpu, usage.memory, reads, more)
