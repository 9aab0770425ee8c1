# SPDX-License-Identifier: Apache-2.0
"""Replays a log: builds states after power cuts and checks each.

    python -m tests.crash.replay LOG WORKLOAD_SEED SEED [CUT TRY]

repeats what a failed test printed.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.checker import Checker
from tests.crash.disk import Dice, Disk
from tests.crash.journal import Kind, build_recorder, read_log
from tests.crash.live import open_store
from tests.crash.model import Model
from tests.crash.reader import Found, Reader, State
from tests.crash.recovery import check_cuts, cut_again, put_state

#: States for each cut.
TRIES = 4
#: Of so many states one is opened by a real instance.
LIVE_EVERY = 50
#: States of one recovery that is cut again.
SECOND_STATES = 100


class PowerCutFailure(AssertionError):
    """A state that must not be."""


@dataclass
class Report:
    """How much was checked."""

    states: int = 0
    opened: int = 0
    recovered: int = 0
    second: int = 0
    volumes: int = 0


class Replay:
    """Goes through one log.

    Args:
        log: of the recorder.
        workload_seed: of the workload that made it.
        seed: of the cuts and of what each leaves.
        live: a directory to be, where real instances open some states; None: none do.
        recorder: records recoveries, which are cut again; None: none are.
        recoveries: how many.
    """

    def __init__(
        self,
        log: Path,
        workload_seed: int,
        seed: int,
        live: Path | None = None,
        recorder: Path | None = None,
        recoveries: int = 0,
    ) -> None:
        self._log = log
        self._workload_seed = workload_seed
        self._seed = seed
        self._live = live
        self._recorder = recorder
        self._recoveries = recoveries
        self._events = read_log(log)
        self._reader = Reader()
        self._checker = Checker()
        self._report = Report()

    def run(self, states: int) -> Report:
        """Check so many states after cuts at random positions.

        Raises:
            PowerCutFailure: a state is not what it may be.
        """
        rng = random.Random(self._seed)
        positions = range(1, len(self._events) + 1)
        cuts = Counter(rng.choices(positions, k=-(-states // TRIES)))
        recover = set(rng.sample(sorted(cuts), min(self._recoveries, len(cuts))))
        for position, disk, model in self._walk():
            for attempt in range(cuts[position] * TRIES):
                number = self._report.states
                state, found = self._check(position, attempt, disk, model)
                with self._blame(position, attempt, disk):
                    if self._live is not None and number % LIVE_EVERY == 0:
                        self._open(state, model)
                    if position in recover and attempt == 0:
                        self._recover(state, found)
        return self._report

    def one(self, cut: int, attempt: int) -> Report:
        """Check one state in all ways.

        Raises:
            PowerCutFailure: as `run`.
        """
        for position, disk, model in self._walk():
            if position == cut:
                state, found = self._check(position, attempt, disk, model)
                with self._blame(position, attempt, disk):
                    self._open(state, model)
                    self._recover(state, found)
                break
        return self._report

    def _walk(self) -> Iterator[tuple[int, Disk, Model]]:
        disk, model = Disk(("data", "maps")), Model(self._workload_seed)
        for position, event in enumerate(self._events, 1):
            disk.advance(event)
            if event.kind is Kind.MARK:
                with self._blame(position, 0, disk):
                    model.take(event.path, event.data)
            yield position, disk, model

    def _dice(self, position: int, attempt: int, disk: Disk) -> Dice:
        seed = hash((self._seed, position, attempt))
        return Dice.throw(seed, disk.first_pending(), position)

    @contextlib.contextmanager
    def _blame(self, position: int, attempt: int, disk: Disk) -> Iterator[None]:
        """Say how to repeat what fails."""
        try:
            yield
        except Exception as error:
            raise PowerCutFailure(
                f"{type(error).__name__}: {error}\n"
                f"after a power cut at event {position} of {len(self._events)}, "
                f"{self._dice(position, attempt, disk)}\n"
                f"python -m tests.crash.replay {self._log} {self._workload_seed} "
                f"{self._seed} {position} {attempt}"
            ) from error

    def _check(
        self, position: int, attempt: int, disk: Disk, model: Model
    ) -> tuple[State, dict[str, Found]]:
        with self._blame(position, attempt, disk):
            state = disk.state(self._dice(position, attempt, disk))
            found = self._reader.read(state)
            self._checker.check(model, found)
        self._report.states += 1
        self._report.volumes += len(found)
        return state, found

    @contextlib.contextmanager
    def _place(self) -> Iterator[Path | None]:
        if self._live is None:
            yield None
            return
        shutil.rmtree(self._live, ignore_errors=True)
        self._live.mkdir()
        try:
            yield self._live
        finally:
            shutil.rmtree(self._live, ignore_errors=True)

    def _open(self, state: State, model: Model) -> None:
        with self._place() as place:
            if place is not None:
                put_state(place / "store", state)
                Checker().check(model, open_store(place))
                self._report.opened += 1

    def _recover(self, state: State, found: dict[str, Found]) -> None:
        with self._place() as place:
            if place is not None and self._recorder is not None:
                args = cut_again(state, found, place, self._seed, self._recorder)
                number = check_cuts(*args, self._seed, SECOND_STATES, Checker())
                self._report.recovered += 1
                self._report.second += number
                self._report.states += number


def main() -> None:
    """Repeat one state, or all of a log."""
    log, workload_seed, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    place = log.parent / "live"
    replay = Replay(log, workload_seed, seed, place, build_recorder(log.parent), 4)
    if len(sys.argv) > 5:
        print(replay.one(int(sys.argv[4]), int(sys.argv[5])))
    else:
        print(replay.run(10_000))


if __name__ == "__main__":
    main()
