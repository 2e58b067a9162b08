"""Rounds of the model: one server, some clients and administrators, and now and then the server's death."""

from __future__ import annotations

import random
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable

from .administrators import Administrator
from .clients import Client, Connection, read_snapshot
from .failure import Failed
from .library import READ, SYNC, WRITE, Delays
from .registers import beginning
from .server import Server
from .volumes import BLOCKS_MAX, CELLS_PER_BLOCK, ZEROES, Shape, Volume
from .world import World

#: A thread that has not ended so long after it should is stuck in a call.
STUCK_SECONDS = 60


class Round:
    """One round, all of whose randomness comes from its seed: but when threads run is for the scheduler to say."""

    def __init__(self, seed: int, seconds: float, folder: Path, left_out: frozenset[str] = frozenset(),
                 administrators: int | None = None):
        source = random.Random(seed)
        self.seed = seed
        self.seconds = seconds
        self.source = source
        self.shape = Shape(source.choice((4096, 4096, 65536)))
        self.theme = source.choice(("all", "sizes", "rollbacks"))
        self.clients = source.randrange(3, 7)
        drawn = source.randrange(1, 4)
        self.administrators = drawn if administrators is None else administrators
        self.delays = Delays(folder / "control")
        share, longest = source.choice((20, 100, 300)), source.choice((1000, 5000, 20_000, 50_000))
        # Where some calls are late and others are not, one operation passes another.
        kinds = source.choice((READ | WRITE | SYNC, WRITE, WRITE | READ, SYNC))
        self.environment = self.delays.environment() | {
            "LACUNA_DELAYS_SEED": str(seed), "LACUNA_DELAYS_SHARE": str(share), "LACUNA_DELAYS_LONGEST": str(longest),
            "LACUNA_DELAYS_KINDS": str(kinds)}
        self.server = Server(folder, "cache=256K", "checkpoint-interval=1", environment=self.environment)
        self.world = World(self.server, self.shape, source.choice((1, 2, 5)), left_out)
        self.kill_pause = source.choice((2.0, 4.0, 1e9)) if "kill" not in left_out else 1e9
        self.parameters = (
            f"seed {seed}, {self.theme}, blocks of {self.shape.block}, {self.world.volumes_max} volumes at most, "
            f"{self.clients} clients, {self.administrators} administrators, {share} of 1000 calls up to {longest} us late ("
            + ", ".join(name for kind, name in ((READ, "reads"), (WRITE, "writes"), (SYNC, "syncs")) if kinds & kind) + ")"
            + (f", killed each {self.kill_pause:g} s" if self.kill_pause < 1e9 else "")
            + (f", without {', '.join(sorted(left_out))}" if left_out else ""))

    def run(self) -> None:
        """Fails with all that is known of the first failure."""
        try:
            self._prepare()
            self._work()
            if not self.world.failures:
                self._end()
        except Failed as error:
            self.world.fail(str(error))
        finally:
            self.server.kill()
        if self.world.failures:
            raise Failed("\n".join([*self.world.failures[:2], self.parameters, self.server.log_tail()]))

    def _prepare(self) -> None:
        for number in range(min(2, self.world.volumes_max)):
            size = self.source.randrange(4 * CELLS_PER_BLOCK, BLOCKS_MAX * CELLS_PER_BLOCK) * self.shape.cell
            arguments = ["--block-size", str(self.shape.block), "--journal", "64K"] if number == 0 else []
            self.server.must("create", "--volume", f"v{number}", "--size", str(size), *arguments)
            volume = Volume(self.world, f"v{number}", size, beginning(ZEROES))
            self.world.volumes.append(volume)
            self.world.name_event(volume.name, True, "made").succeed()
        self.server.start()
        if not self.delays.calls(READ):
            raise Failed("the library of delays sees no call of the server")

    def _work(self) -> None:
        # A rollback without force takes a moment without clients.
        pause = 0.05 if self.theme == "rollbacks" else 0
        workers: list[Any] = [Client(self.world, number, f"{self.seed} client {number}", pause) for number in range(self.clients)]
        workers += [Administrator(self.world, number, f"{self.seed} administrator {number}", self.theme,
                                  self.delays.rule())
                    for number in range(self.administrators)]
        threads = {}
        for worker in workers:
            thread = threading.Thread(target=self._guard, args=(worker.run,), daemon=True)
            threads[thread] = worker.name
            thread.start()
        self._guard(self._watch)
        self.world.stopping.set()
        end = time.monotonic() + STUCK_SECONDS
        for thread in threads:
            thread.join(max(0.1, end - time.monotonic()))
        stuck = [thread for thread in threads if thread.is_alive()]
        if stuck:
            frames = sys._current_frames()  # pylint: disable=protected-access
            stacks = ["".join(traceback.format_stack(frames[thread.ident])[-4:]) for thread in stuck if thread.ident in frames]
            raise Failed("\n".join([f"stuck: {', '.join(threads[thread] for thread in stuck)}", *stacks]))

    def _guard(self, call: Callable[[], None]) -> None:
        """Runs a thread of the round; whatever it fails with ends the round."""
        try:
            call()
        except Failed as error:
            self.world.fail(str(error))
        except Exception:  # pylint: disable=broad-except # a fault of the test, which must not pass for success
            self.world.fail(traceback.format_exc())

    def _watch(self) -> None:
        """Kills the server now and then, until the round's time is over."""
        end = time.monotonic() + self.seconds
        next_kill = time.monotonic() + self.kill_pause
        while time.monotonic() < end and not self.world.stopping.wait(0.05):
            if self.server.has_ended:
                raise Failed("the server has ended by itself")
            if time.monotonic() > next_kill:
                with self.world.naming, self.world.death():
                    self.world.count("kill")
                    self.server.kill()
                    self.server.start()
                next_kill = time.monotonic() + self.kill_pause

    def _end(self) -> None:
        """All is quiet: what is there must be right, and the store whole; as it is after a death too."""
        if self.server.has_ended:
            raise Failed("the server has ended by itself")
        for volume in self.world.volumes:
            connection = Connection(self.world, volume, volume.name, self.source, "the round's end")
            connection.read_all()
            connection.close()
        for snapshot in self.world.known_snapshots():
            if read_snapshot(self.world, snapshot, "the round's end") != snapshot.contents:
                raise Failed(f"{snapshot.name} has changed")
        if self.source.random() < 0.5:
            self.server.kill()
        else:
            self.server.stop()
        self.server.check()

    def described(self) -> str:
        """What the round has done."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.world.counts.items()))
