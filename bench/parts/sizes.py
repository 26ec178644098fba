"""Whether memory follows the image's size, and from which size on the fixed costs do not matter."""

from ..content import MIB
from ..lab import Lab
from ..report import Report, Samples
from .replicate import replicate

TITLE = "Sizes: memory and time"
LARGE = 1024  # MiB; beyond it to one store only, for the memory's sake


def run(lab: Lab, options) -> Report:
    samples = Samples()
    for round_ in range(options.rounds):
        for mib in options.sizes:
            count = 3 if mib <= LARGE else 1
            if lab.has_room((count + 1) * mib, f"{mib} MiB"):
                samples.append(replicate(lab, f"{mib} MiB to {count}", round_, mib, lab.cloud.nginx[:count]))
    return report(samples)


def report(samples: Samples) -> Report:
    rows = []
    for case, found in samples.cases().items():
        disk = max(found.more("disk").values) / MIB
        rows.append({"image, stores": case, **found.usual_row(), "disk written MiB": f"{disk:.2f}"})
    peaks = {case: max(found.series("memory").values) / MIB for case, found in samples.cases().items()}
    shows = []
    if peaks:
        least, most = min(peaks, key=peaks.get), max(peaks, key=peaks.get)
        largest = max(samples, key=lambda sample: sample.mib).case
        shows = [
            f"Peak memory is {peaks[least]:.1f} MiB ({least}) to {peaks[most]:.1f} MiB ({most}); "
            f"with the largest image, {peaks[largest]:.1f} MiB.",
            f"Mimeo wrote at most {max(samples.more('disk').values) / MIB:.2f} MiB to the disk; its ledger is there.",
        ]
    return Report(TITLE, rows, shows, [], samples)
