"""An end for what never ends: a benchmark that hangs says nothing, and holds gigabytes of memory while it does."""

import signal
import sys
from contextlib import contextmanager


class NeverEnded(Exception):
    """Not an AssertionError: those are waited out."""


@contextmanager
def limit(seconds: float, what: str):
    """Raises NeverEnded in the main thread when the block takes longer. Blocks do not nest."""

    def ring(*_):
        raise NeverEnded(f"{what} did not end within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def patience(mib: float) -> float:
    """Seconds after which work on that many MiB counts as hung: some hundred times what it takes on a small machine
    for little, and tenfold for much."""
    return 120 + mib / 5


def say(text: str) -> None:
    """Progress, apart from the results."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
