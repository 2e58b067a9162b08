"""Runs the scenarios, prints a line for each, and keeps the logs of those that failed."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from . import native, scenarios
from .commands import Failed
from .file_systems import ALL, EXT4, FileSystem
from .guest_image import GuestImage
from .lab import Lab
from .log import Log
from .scenario import GUEST, NATIVE, PLACES, SCENARIOS, Scenario
from .server import ROOT


@dataclass(frozen=True)
class Case:
    """A scenario at a place, with a file system."""

    scenario: Scenario
    place: str
    file_system: FileSystem

    @property
    def name(self) -> str:
        is_varied = self.scenario.on_each_file_system and self.place == NATIVE
        return f"{self.scenario.name}/{self.place}" + (f"-{self.file_system.name}" if is_varied else "")


def cases(skipped: list[tuple[str, str]], places: list[str], words: list[str]) -> list[Case]:
    """What is to be run. What this machine cannot do is added to `skipped`, with the reason."""
    reason = native.why_not() if NATIVE in places else None
    chosen = []
    for scenario in SCENARIOS:
        for place in (place for place in scenario.places if place in places):
            for file_system in ALL if scenario.on_each_file_system and place == NATIVE else (EXT4,):
                case = Case(scenario, place, file_system)
                if words and not any(word in case.name for word in words):
                    continue
                if place == NATIVE and reason:
                    skipped.append((case.name, reason))
                elif place == NATIVE and not native.kernel_has(file_system.name):
                    skipped.append((case.name, f"this machine's kernel has no {file_system.name}"))
                else:
                    chosen.append(case)
    return chosen


class Run:
    """All cases of one call. Lines are printed by one thread at a time."""

    def __init__(self, image: GuestImage | None, logs: Path, accelerator: str, keep: bool):
        self.image = image
        self.logs = logs
        self.accelerator = accelerator
        self.keep = keep
        self.printing = threading.Lock()
        self.passed = 0
        self.failed = 0
        self.labs: set[Lab] = set()
        self.is_stopping = False

    def work(self, waiting: queue.SimpleQueue[Case]) -> None:
        """Runs cases until there are none left."""
        while not self.is_stopping:
            try:
                case = waiting.get_nowait()
            except queue.Empty:
                return
            self.run(case)

    def run(self, case: Case) -> None:
        name = case.name.replace("/", "-").replace(" ", "-")
        log = Log(self.logs / f"{name}.log")
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="lacuna-e2e-"))
        lab = Lab(folder, log, self.image, self.accelerator, case.file_system, case.scenario.programs, case.place != GUEST)
        self.labs.add(lab)
        is_late = threading.Event()
        overdue = threading.Timer(case.scenario.limit, self.give_up, (case, lab, is_late))
        overdue.start()
        failure = None
        try:
            case.scenario.run(lab)
        except Failed as error:
            failure = str(error)
            log.write(traceback.format_exc())
        except Exception:  # pylint: disable=broad-except
            failure = traceback.format_exc()
            log.write(failure)
        overdue.cancel()
        overdue.join()
        if is_late.is_set():
            failure = f"it took longer than {case.scenario.limit} s\n{failure or ''}"
        lab.end()
        self.labs.remove(lab)
        if failure is None and lab.left:
            failure = "\n".join(["it left something on this machine:", *lab.left])
        for output in sorted((*folder.glob("guest*/console"), *folder.glob("native*/fuse.log"), *folder.glob("between.log"))):
            log.write(f"--- {output.relative_to(folder)}\n{output.read_text(encoding='utf-8', errors='replace')}")
        shutil.rmtree(folder, ignore_errors=True)
        self.report(case.name, failure, time.monotonic() - began, log)

    def give_up(self, case: Case, lab: Lab, is_late: threading.Event) -> None:
        is_late.set()
        lab.log.write(f"[longer than {case.scenario.limit} s; its machines and servers are ended]\n")
        lab.end()

    def stop(self, signal_number: int, _: object) -> None:
        """Ends all machines and servers, and this program."""
        self.is_stopping = True
        for lab in list(self.labs):
            lab.end()
            shutil.rmtree(lab.folder, ignore_errors=True)
        os._exit(128 + signal_number)

    def report(self, name: str, failure: str | None, seconds: float, log: Log) -> None:
        with self.printing:
            if failure is None:
                self.passed += 1
                print(f"ok {name} ({seconds:.0f} s)", flush=True)
                if not self.keep:
                    log.path.unlink()
                return
            self.failed += 1
            print(f"not ok {name} ({seconds:.0f} s)")
            for line in failure.splitlines()[:40]:
                print(f"# {line}")
            print(f"# the end of its log, {log.path}:")
            for line in log.tail(40):
                print(f"#   {line}")
            sys.stdout.flush()


def jobs() -> int:
    """How many cases run at once: each may have a guest, which takes a processor, and 1.5 GiB of memory with its server."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, memory // (3 << 29)))


def prepared_image() -> GuestImage | None:
    """What guests boot; none where it cannot be made, which those who need one then fail for."""
    image = GuestImage(ROOT / ".build/e2e/image")
    try:
        image.prepare()
    except Failed as error:
        print(f"no image for guests can be made: {error}", flush=True)
        return None
    return image


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/e2e", description="Checks what users do with a served disk.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only cases whose names have one of these words")
    parser.add_argument("--place", choices=PLACES, help="only in virtual machines, on this machine with mounts, or without")
    parser.add_argument("--list", action="store_true", help="print the names of the cases, and run none")
    parser.add_argument("--jobs", type=int, default=jobs(), help="how many run at once (default: %(default)s)")
    parser.add_argument("--logs", type=Path, default=ROOT / ".build/e2e/logs", help="where logs of failures are kept")
    parser.add_argument("--keep-logs", action="store_true", help="keep the logs of those that pass too")
    parser.add_argument("--accelerator", default="tcg", help="QEMU's -accel (default: %(default)s, software emulation)")
    arguments = parser.parse_args()

    for module in pkgutil.iter_modules(scenarios.__path__):
        importlib.import_module(f"{scenarios.__name__}.{module.name}")
    skipped: list[tuple[str, str]] = []
    chosen = cases(skipped, [arguments.place] if arguments.place else list(PLACES), arguments.words)
    if arguments.list:
        for case in chosen:
            print(case.name)
        return 0

    image = None
    if any(case.place == GUEST for case in chosen):
        image = prepared_image()
    arguments.logs.mkdir(parents=True, exist_ok=True)
    run = Run(image, arguments.logs, arguments.accelerator, arguments.keep_logs)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, run.stop)
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    # The longest first, so that none of them is alone at the end.
    for case in sorted(chosen, key=lambda case: -case.scenario.limit):
        waiting.put(case)
    workers = [threading.Thread(target=run.work, args=(waiting,)) for _ in range(max(1, arguments.jobs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for name, reason in skipped:
        print(f"skip {name}: {reason}")
    print(f"e2e: {run.passed} passed, {run.failed} failed, {len(skipped)} skipped")
    return 1 if run.failed or not run.passed else 0


if __name__ == "__main__":
    sys.exit(main())
