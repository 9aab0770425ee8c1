# SPDX-License-Identifier: Apache-2.0
"""Replays a log: builds states after power cuts and checks each.

    python -m tests.crash.replay LOG WORKLOAD_SEED SEED [CUT TRY]

repeats what a failed test printed.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.crash.disk import Dice, Disk
from tests.crash.journal import Kind, read_log
from tests.crash.model import Expected, Model, differs
from tests.crash.reader import BrokenStore, Found, Reader, State

#: States for each cut.
TRIES = 4


class PowerCutFailure(AssertionError):
    """A state that must not be."""


@dataclass
class Report:
    """How much was checked."""

    states: int = 0
    opened: int = 0
    volumes: int = 0


class Checker:
    """Compares what a store holds with the model."""

    def __init__(self) -> None:
        self._good: dict[str, tuple[bytes, Expected, int]] = {}

    def check(self, model: Model, found: dict[str, Found]) -> None:
        """Check all volumes.

        Raises:
            BrokenStore: a volume is missing, there twice, too old or wrong.
        """
        holders: Counter[int] = Counter()
        for name, volume in found.items():
            number = self._owner(model, name)
            holders[number] += 1
            if holders[number] > 1:
                raise BrokenStore(f"volume {number} has two names, one is {name}")
            self._check_volume(name, model.volumes[number], volume)
        for number, expected in model.volumes.items():
            if not holders[number] and None not in expected.names:
                raise BrokenStore(f"volume {number} {expected.names} is gone")

    def _owner(self, model: Model, name: str) -> int:
        for number, volume in model.volumes.items():
            if name in volume.names:
                return number
        raise BrokenStore(f"there is a volume {name}, which nobody made or was removed")

    def _check_volume(self, name: str, expected: Expected, volume: Found) -> None:
        good = self._good.get(name)
        now = (volume.data, expected, expected.version)
        if good is not None and good[0] is now[0] and good[1:] == now[1:]:
            return
        size = len(volume.data)
        if size not in expected.sizes:
            raise BrokenStore(f"{name} has {size} bytes, not {expected.sizes}")
        if volume.read_only != expected.read_only:
            raise BrokenStore(f"{name} is read-only: {volume.read_only}")
        wrong = differs(expected, volume.data, size)
        if wrong:
            raise BrokenStore(f"{name}: {wrong}")
        self._good[name] = now


def replay(
    log: Path,
    workload_seed: int,
    seed: int,
    states: int,
    live: Path | None = None,
    live_every: int = 50,
    only: tuple[int, int] | None = None,
) -> Report:
    """Check states after power cuts at random positions of a log.

    Args:
        log: of the recorder.
        workload_seed: of the workload that made it.
        seed: of the cuts and of what each leaves.
        states: how many.
        live: where a real instance opens some of the states; None: nowhere.
        live_every: of so many states one.
        only: one cut and the number of one of its states, which is opened too.

    Raises:
        PowerCutFailure: a state is not what it may be.
    """
    events = read_log(log)
    rng = random.Random(seed)
    cuts = Counter(rng.choices(range(1, len(events) + 1), k=-(-states // TRIES)))
    if only is not None:
        cuts = Counter({only[0]: only[1] // TRIES + 1})
    disk, model, reader, checker = (
        Disk(("data", "maps")),
        Model(workload_seed),
        Reader(),
        Checker(),
    )
    report = Report()
    for position, event in enumerate(events, 1):
        disk.advance(event)
        if event.kind is Kind.MARK:
            model.take(event.path)
        for attempt in range(cuts[position] * TRIES):
            if only is not None and attempt != only[1]:
                continue
            dice = Dice.throw(
                hash((seed, position, attempt)), disk.first_pending(), position
            )
            state = disk.state(dice)
            opens = only is not None or report.states % live_every == live_every - 1
            try:
                found = reader.read(state)
                checker.check(model, found)
                report.states += 1
                report.volumes += len(found)
                if live is not None and opens:
                    _open_live(live, state, model)
                    report.opened += 1
            except Exception as error:
                raise PowerCutFailure(
                    f"{type(error).__name__}: {error}\n"
                    f"after a power cut at event {position} of {len(events)}, {dice}\n"
                    f"python -m tests.crash.replay {log} {workload_seed} {seed} "
                    f"{position} {attempt}"
                ) from error
    return report


def _open_live(where: Path, state: State, model: Model) -> None:
    from tests.crash.live import open_store

    shutil.rmtree(where, ignore_errors=True)
    try:
        for path, data in state.items():
            target = where / "store" / path
            if data is None:
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.write_bytes(data)
        Checker().check(model, open_store(where))
    finally:
        shutil.rmtree(where, ignore_errors=True)


def main() -> None:
    """Repeat one state, or all of a log."""
    log, workload_seed, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    only = (int(sys.argv[4]), int(sys.argv[5])) if len(sys.argv) > 5 else None
    print(replay(log, workload_seed, seed, 10_000, log.parent / "live", only=only))


if __name__ == "__main__":
    main()
