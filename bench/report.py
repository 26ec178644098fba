"""From samples to tables: medians with their spread, as Markdown for people and JSON for programs."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from .content import MIB


@dataclass
class Sample:
    """One case in one round. What is not known is None."""

    case: str
    round: int
    mib: float
    seconds: float
    floor: float | None = None
    cpu: float | None = None
    memory: int | None = None
    reads: float | None = None  # of the source, in images
    more: dict = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return self.seconds / self.floor if self.floor else None

    @property
    def cpu_per_gib(self) -> float | None:
        return self.cpu * 1024 / self.mib if self.cpu is not None else None


@dataclass
class Series:
    """The values of one figure over the rounds."""

    values: list[float]

    def __post_init__(self):
        self.values = [value for value in self.values if value is not None]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f}" if self.values else "–"

    def spread(self, digits: int = 2) -> str:
        return f"{min(self.values):.{digits}f} to {max(self.values):.{digits}f}" if self.values else "–"

    def full(self, digits: int = 2) -> str:
        """The median, and in brackets the spread."""
        return f"{self.text(digits)} ({self.spread(digits)})" if self.values else "–"


class Samples(list[Sample]):
    def cases(self) -> dict[str, "Samples"]:
        """By case, in the order of their first appearance."""
        found: dict[str, Samples] = {}
        for sample in self:
            found.setdefault(sample.case, Samples()).append(sample)
        return found

    def series(self, figure: str) -> Series:
        return Series([getattr(sample, figure) for sample in self])

    def more(self, figure: str) -> Series:
        return Series([sample.more.get(figure) for sample in self])

    def by_round(self, case: str) -> dict[int, Sample]:
        return {sample.round: sample for sample in self if sample.case == case}

    def usual_row(self) -> dict[str, str]:
        """The columns that most tables have. Memory is the greatest, since that is what has to be there."""
        memory = self.series("memory").values
        return {
            "ratio to floor": self.series("ratio").text(),
            "spread": self.series("ratio").spread(),
            "CPU s/GiB": self.series("cpu_per_gib").text(),
            "peak memory MiB": f"{max(memory) / MIB:.1f}" if memory else "–",
            "source reads": self.series("reads").text(2),
            "seconds": self.series("seconds").text(),
        }


def compared(samples: Samples, figure: str, one: str, other: str) -> Series:
    """A figure of one case divided by that of another, round by round."""
    others = samples.by_round(other)
    pairs = [(mine, others[number]) for number, mine in samples.by_round(one).items() if number in others]
    return Series([getattr(mine, figure) / getattr(theirs, figure) for mine, theirs in pairs])


@dataclass
class Report:
    title: str
    rows: list[dict[str, str]]
    shows: list[str]  # what it shows, one sentence each
    notes: list[str] = field(default_factory=list)  # how to read the columns
    samples: Iterable[Sample] = ()

    def markdown(self) -> str:
        lines = [f"## {self.title}", ""]
        if self.rows:
            heads = list(self.rows[0])
            lines += [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
            lines += [_line([str(row[head]) for head in heads]) for row in self.rows] + [""]
        if self.shows:
            lines += ["What it shows:", "", *(f"- {text}" for text in self.shows)]
        if self.notes:
            lines += ["", *(f"{note}  " for note in self.notes[:-1]), self.notes[-1]]
        return "\n".join(lines) + "\n"

    def data(self) -> dict:
        samples = [{**asdict(sample), "ratio": sample.ratio} for sample in self.samples]
        return {"title": self.title, "rows": self.rows, "shows": self.shows, "notes": self.notes, "samples": samples}


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
