# SPDX-License-Identifier: Apache-2.0
"""Runs the script of `world.py` once for each call that may fail.

    python -m tests.fault.sweep CONTROL ROOT ENGINE KINDS ERROR MODE FIRST STEP

runs under the library of `plan.build_injector`, with ROOT as its directory.  Each round
has a new store there; the k-th call of the KINDS ("WRITE,SYNC") fails with ERROR
("EIO", "SHORT"), alone (MODE once) or with all that come after it until the disk is
said to be cleared (MODE full), for k = FIRST, FIRST + STEP, ... until the script ends
before its k-th call.
"""

from __future__ import annotations

import errno
import faulthandler
import logging
import shutil
import sys
from collections import Counter
from pathlib import Path

import archipelago.control.maintenance as maintenance
from archipelago.errors import ArchipelagoError, IoError, LeaseLost, NoSpace
from archipelago.volume.context import Limits
from tests.fault.plan import Kind, Plan
from tests.fault.world import World
from tests.helpers.inprocess import Running, running

#: Everything that runs in the background has something to do in each round.
LIMITS = Limits(checkpoint_bytes=400, stack_soft=1, stack_hard=2, stack_most=3)
#: What operations say, by errno; a short transfer is simply continued.
_TOLD: dict[int, tuple[type[ArchipelagoError], ...]] = {
    errno.EIO: (IoError,),
    errno.ENOSPC: (NoSpace,),
    0: (),
}
#: Nothing of the script takes that long [s].
HANGS = 60.0


class Leak(AssertionError):
    """Something was not given back."""


class Sweep:
    """One kind of failure.

    Args:
        plan: says what fails.
        root: the store, whose calls fail.
        engine: of the file backend.
        kinds: of calls.
        error: errno, 0 for short transfers.
        full: all calls from the k-th, as on a full disk.
    """

    def __init__(
        self,
        plan: Plan,
        root: Path,
        engine: str,
        kinds: tuple[Kind, ...],
        error: int,
        *,
        full: bool,
    ) -> None:
        self._plan = plan
        self._root = root
        self._engine = engine
        self._kinds = kinds
        self._error = error
        self._full = full
        #: What operations said when a call failed.
        self.met: Counter[str] = Counter()
        self._errors: list[tuple[str, ArchipelagoError]] = []

    def round(self, k: int) -> bool:
        """Let the k-th call fail; False if there were fewer."""
        home = self._root.parent / "home"
        store = self._root
        home.mkdir()
        for name in ("data", "maps"):
            (store / name).mkdir(parents=True)
        try:
            return self._round(k, home, store)
        except BaseException:
            print(f"at call {k}, after {self._errors}:", file=sys.stderr)
            raise
        finally:
            self._plan.clear()
            shutil.rmtree(home)
            shutil.rmtree(store)

    def _round(self, k: int, home: Path, store: Path) -> bool:
        with (
            running(home, store=store, engine=self._engine, limits=LIMITS) as instance,
            instance.connect() as client,
        ):
            # A sync that failed may stand in the way until the restart.
            sticks = Kind.SYNC in self._kinds
            world = World(
                client,
                self._plan.counts,
                instance.control.maintenance.round,
                home / "image",
            )
            self._errors = world.errors
            world.prepare()
            world.patient = not self._full and not sticks
            before = _in_use(instance)
            self._plan.fail(
                self._kinds,
                self._error,
                k,
                None if self._full else 1,
                only_full=self._full,
            )
            world.run()
            counts = self._plan.counts()
            self._plan.clear()
            # A volume is stopped when its change may be durable or not.
            stopped = (LeaseLost,) if sticks else ()
            world.check_errors((*_TOLD[self._error], *stopped))
            if not sticks:
                self._prove_usable(world)
            world.end()
            world.check_names(hidden=sticks)
            self._count(world)
            after = _in_use(instance)
            if after > before:
                raise Leak(f"requests and buffers in use: {before}, then {after}")
        with (
            running(home, store=store, engine=self._engine, limits=LIMITS) as instance,
            instance.connect() as client,
        ):
            world.join(client)
            self._prove_usable(world)
            world.end()
        return counts.nr >= k

    def _prove_usable(self, world: World) -> None:
        before = len(world.errors)
        world.patient = True
        world.prove_usable()
        # What was hurt may need a round of maintenance; nothing else is excused.
        for what, error in world.errors[before:]:
            self.met[f"afterwards, {what}: {type(error).__name__}"] += 1
        del world.errors[before:]

    def _count(self, world: World) -> None:
        for what, error in world.errors:
            self.met[f"{what}: {type(error).__name__}"] += 1


def _in_use(instance: Running) -> tuple[list[str], int]:
    """Requests on their way, and buffers in use, when all has come to rest."""
    for _ in range(1000):
        under_way = [
            f"{r.op} {r.target} {r.state} from {r.src_port} to {r.dst_port}"
            for r in instance.segment.requests()
            if r.state != "allocated" and r.op != "NOTIFY"  # which waits for ever
        ]
        if not under_way:
            break
    return under_way, instance.segment.statistics().nr_used_buffers


def main(argv: list[str]) -> None:
    """Run all rounds; print what was met."""
    control, root, engine, kinds, error, mode, first, step = argv
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    maintenance._PERIOD = 1e9  # the script does its rounds
    full = mode == "full"
    number = 0 if error == "SHORT" else getattr(errno, error)
    names = tuple(Kind[k] for k in kinds.split(","))
    with Plan(Path(control)) as plan:
        sweep = Sweep(plan, Path(root), engine, names, number, full=full)
        k = int(first)
        rounds = 0
        while True:
            faulthandler.dump_traceback_later(HANGS, exit=True)
            if not sweep.round(k):
                break
            k += int(step)
            rounds += 1
        faulthandler.cancel_dump_traceback_later()
    print(f"{rounds} rounds, calls {first} to {k - int(step)}: {dict(sweep.met)}")
    if rounds == 0:
        sys.exit("nothing failed")


if __name__ == "__main__":
    main(sys.argv[1:])
