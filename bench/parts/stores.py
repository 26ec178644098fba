"""What one more store costs: one image to 1, 2, 3, 5 and 8 plain HTTP stores."""

from ..lab import Lab
from ..report import Report, Samples, Series
from .replicate import replicate

TITLE = "Stores: what one more costs"
COUNTS = (1, 2, 3, 5, 8)


def run(lab: Lab, options) -> Report:
    samples = Samples()
    mib = options.middle_size
    for round_ in range(options.rounds):
        for count in COUNTS:
            if lab.has_room((count + 1) * mib, f"{count} stores"):
                samples.append(replicate(lab, name(count), round_, mib, lab.cloud.nginx[:count]))
    return report(samples, mib)


def name(count: int) -> str:
    return f"{count} store{'s' if count > 1 else ''}"


def report(samples: Samples, mib: int) -> Report:
    rows, before = [], None
    for count in COUNTS:
        found = Samples(sample for sample in samples if sample.case == name(count))
        if not found:
            continue
        added = each_added(samples, before, count) if before else Series([])
        usual = found.usual_row()
        rows.append({
            "stores": str(count), "CPU s/GiB": usual["CPU s/GiB"],
            "spread of CPU": found.series("cpu_per_gib").spread(), "each added store": added.full(),
            **{key: usual[key] for key in ("ratio to floor", "spread", "peak memory MiB", "source reads", "seconds")},
        })
        before = count
    return Report(f"{TITLE} ({mib} MiB)", rows, claims(samples), ["Each added store: CPU s/GiB, beside the row above."],
                  samples)


def each_added(samples: Samples, few: int, many: int) -> Series:
    """CPU seconds per GiB for each store between two counts, round by round."""
    fewer, more = samples.by_round(name(few)), samples.by_round(name(many))
    both = sorted(fewer.keys() & more.keys())
    return Series([(more[r].cpu_per_gib - fewer[r].cpu_per_gib) / (many - few) for r in both])


def claims(samples: Samples) -> list[str]:
    second, late = each_added(samples, 1, 2), each_added(samples, 5, 8)
    if not second.values or len(second.values) != len(late.values):
        return ["Cases were left out, so the cost of a late store is not compared with that of the second."]
    # Where the cost of the second is lost in the noise, a ratio to it says nothing.
    ratio = Series([after / before for after, before in zip(late.values, second.values) if before > 0])
    lost = len(second.values) - len(ratio.values)
    shows = [
        f"The sixth to eighth store cost {late.full()} CPU s/GiB each, the second {second.full()}: "
        f"{ratio.full()} × as much, round by round; by the medians, {late.median / second.median:.2f} ×.",
    ]
    if lost:
        shows.append(f"Rounds left out, since the second store's cost was lost in the noise: {lost}.")
    return shows
