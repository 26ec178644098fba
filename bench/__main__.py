"""One command, one run: measures the chosen parts and prints their tables. It prints, and does not judge."""

import argparse
import atexit
import json
import signal
import sys
import time
import traceback
from pathlib import Path

from cloud.base import kill_all, tail

from .environment import environment
from .lab import Lab
from .parts import ALL
from .report import Report
from .watchdog import say


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__, epilog="Parts: " + "; ".join(
        f"{name} ({part.TITLE})" for name, part in ALL.items()))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one or more of {', '.join(ALL)} [default: all]")
    parser.add_argument("--rounds", type=positive, default=3, help="of everything but small and idle [%(default)s]")
    parser.add_argument("--size", type=positive, default=1024,
                        help="MiB of the image of peers and clients [%(default)s]")
    parser.add_argument("--middle-size", type=positive, default=256, metavar="SIZE",
                        help="MiB of the images of stores, concurrent and slow [%(default)s]")
    parser.add_argument("--sizes", type=positive, nargs="+", default=[1, 16, 64, 256, 1024, 4096, 8192],
                        metavar="SIZE", help="MiB of the images of sizes [%(default)s]")
    parser.add_argument("--images", type=positive, default=10_000, help="how many for small [%(default)s]")
    parser.add_argument("--ledger-images", type=positive, default=100_000, metavar="IMAGES", help="[%(default)s]")
    parser.add_argument("--idle-seconds", type=positive, default=30, metavar="SECONDS", help="[%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything, each sample too, to a file")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in ALL]
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(ALL)}")
    options.parts = [part for part in ALL if not options.parts or part in options.parts]
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main() -> int:
    options = arguments()
    atexit.register(kill_all)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lab, reports, failed = Lab(), {}, {}
    about = environment()
    print("# What it costs\n\n" + ", ".join(f"{name} {value}" for name, value in about.items()) + "\n", flush=True)
    try:
        for name in options.parts:
            begun = time.monotonic()
            try:
                reports[name] = measured(lab, name, options)
            except Exception as error:
                failed[name] = told(lab, name, error)
            else:
                print(reports[name].markdown(), flush=True)
            say(f"{name} took {time.monotonic() - begun:.0f} s")
            if options.json:  # after each part: what was measured stays, whatever comes
                save(options, about, reports, failed)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        # Whoever is impatient now would leave servers behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        lab.close()
    for name, why in failed.items():
        print(f"## {ALL[name].TITLE}\n\nNot measured: {why}\n")
    return 1 if failed else 0


def measured(lab: Lab, name: str, options: argparse.Namespace) -> Report:
    if name not in ("small", "ledger"):  # they have a cloud of their own, and none
        lab.clean()
    return ALL[name].run(lab, options)


def told(lab: Lab, name: str, error: Exception) -> str:
    """The whole story to stderr, one line for the table."""
    say(f"{name} failed:\n{''.join(traceback.format_exception(error))}")
    if "cloud" in lab.__dict__:
        say(f"--- the end of Glance's log ---\n{tail(lab.cloud.glance.dir / 'glance-api.log', 20)}")
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def save(options: argparse.Namespace, about: dict, reports: dict[str, Report], failed: dict[str, str]) -> None:
    chosen = {key: value for key, value in vars(options).items() if key != "json"}
    parts = {name: report.data() for name, report in reports.items()}
    everything = {"environment": about, "options": chosen, "parts": parts, "failed": failed}
    options.json.write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
