"""Runs directed cases, or rounds of the model, and prints a line for each."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import directed
from .failure import Failed
from .rounds import Round

#: The exit status where something that was tested has failed; 1 is Python's own, for a test that broke down.
FAILED = 3


def report(name: str, seconds: float, failure: Failed | None) -> None:
    """Prints a line for a test, and for a failure what is known of it."""
    print(f"{'not ok' if failure else 'ok'} delays: {name} ({seconds:.1f} s)", flush=True)
    if failure:
        for line in str(failure).splitlines()[:200]:
            print(f"# {line}", flush=True)


def run_directed(folder: Path, words: list[str]) -> int:
    """Runs the cases whose names have one of the words, or all; returns how many fail."""
    failed = 0
    for number, case in enumerate(directed.CASES):
        name = case.__name__.replace("_", " ")
        if words and not any(word in name for word in words):
            continue
        # Paths of sockets may not be long.
        place = folder / str(number)
        place.mkdir()
        began = time.monotonic()
        failure = None
        try:
            directed.run(case, place)
        except Failed as error:
            failure = error
        report(name, time.monotonic() - began, failure)
        failed += failure is not None
    return failed


def run_model(folder: Path, arguments: argparse.Namespace) -> int:
    """Runs rounds, each with a seed of its own, until the time is over; returns how many fail."""
    end = time.monotonic() + arguments.seconds
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1 << 32)
    failed = number = 0
    while number == 0 or time.monotonic() < end and (number < arguments.rounds or not arguments.rounds):
        place = folder / str(number)
        place.mkdir()
        began = time.monotonic()
        this = Round(seed + number, arguments.round_seconds, place, frozenset(arguments.without),
                     arguments.administrators)
        print(f"# {this.parameters}", flush=True)
        failure = None
        try:
            this.run()
        except Failed as error:
            failure = error
        print(f"# {this.described()}", flush=True)
        report(f"model, seed {seed + number}", time.monotonic() - began, failure)
        failed += failure is not None
        number += 1
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="Delays", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kind = kinds.add_parser("directed", help="races that are brought about on purpose")
    kind.add_argument("words", nargs="*", metavar="WORD", help="only cases whose names have one of these words")
    kind = kinds.add_parser("model", help="random operations against a model")
    kind.add_argument("--seconds", type=float, default=60, help="for how long (default: %(default)s)")
    kind.add_argument("--round-seconds", type=float, default=8, help="how long a round works (default: %(default)s)")
    kind.add_argument("--rounds", type=int, default=0, help="how many rounds at most (default: as the time allows)")
    kind.add_argument("--seed", type=int, help="of the first round; each next one has the next number")
    kind.add_argument("--without", action="append", default=[], metavar="OPERATION",
                      help="leave out what administrators or clients do, such as resize, roll_back, gentle (rollbacks "
                           "without force), zero or trim; or kill")
    kind.add_argument("--administrators", type=int, help="how many there are in each round (default: the seed says it)")
    arguments = parser.parse_args()
    # So that what was started, and the folder, go as at the end.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="lacuna-delays-") as name:
        folder = Path(name)
        failed = run_directed(folder, arguments.words) if arguments.kind == "directed" else run_model(folder, arguments)
    return FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
