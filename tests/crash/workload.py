# SPDX-License-Identifier: Apache-2.0
"""The workload: random work on a recorded store, every step of it marked.

    python -m tests.crash.workload STORE LOG PLAN SEED STEPS

runs under the recorder (`journal.build_recorder`).  Several threads work on volumes of
their own; checkpoints, merging and reclaiming run all the time; processes are killed
with -9 at chosen calls and at any time, and started again.  Between sessions the
instance ends in good order or by kill -9, and the next one is itself or another node,
which takes over what was not given back.  In some plans a second node lives through all
of that: what it learned of a volume is old whenever it gets the volume back.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import archipelago.volume_handle as volume_handle
from archipelago.client import Client
from tests.crash.coverage import DEEP_ENTRIES
from tests.crash.instance import Instance, Node
from tests.crash.journal import DATA, NAMES, SYNCS, Recorder
from tests.crash.marker import Marker
from tests.crash.plans import DEEP, PLANS, Plan
from tests.crash.rival import Rival
from tests.crash.worker import Worker

WORKERS = 2
#: How long clients wait for peers that were killed [s]: for slow machines.
PATIENCE = 60.0
#: Extents that a holder that was paused still has when they are taken over.
HELD_MOST = 2


class Workload:
    """All sessions on one store.

    Args:
        plan: what kind.
        store: empty.
        log: of the recorder.
        seed: of everything.
    """

    def __init__(self, plan: Plan, store: Path, log: Path, seed: int) -> None:
        self._plan = plan
        self._store = store
        self._log = log
        self._rng = random.Random(f"{seed}/workload")
        self._recorder = Recorder()
        self._marker = Marker(self._recorder)
        self._scratch = store.parent / "scratch"
        self._scratch.mkdir()
        depth = DEEP_ENTRIES if plan.limits is DEEP else 0
        self._workers = [
            Worker(i, seed, self._marker, self._scratch, plan.kills > 0, depth)
            for i in range(WORKERS)
        ]
        self._node = 0
        self._marks_fd = -1

    def run(self, steps: int) -> None:
        """Do about so many steps in all."""
        ends = [*self._plan.ends, "stop"]
        steps //= WORKERS * len(ends)
        second = self._instance("second", mortal=False) if self._plan.along else None
        before = "none"
        for end in ends:
            if second is None:
                self._session(before, end, steps)
                before = end
            else:
                self._session(before, end, steps // 2, second)
                self._go_on_alone(second, end, steps // 2)
                before = "stop"
        if second is not None:
            second.stop()
            os.close(second.marks_fd)
        self._forget_marks()

    def _forget_marks(self) -> None:
        """Their supervisor is gone, or another node's."""
        os.close(self._marks_fd)
        self._marks_fd = -1

    def _instance(
        self, name: str, marks_fd: int = -1, *, mortal: bool = True
    ) -> Instance:
        plan = self._plan
        home = self._scratch / name
        node = Node(
            home, self._store, self._log, plan.engine, plan.direct, plan.apart,
            plan.limits, mortal,
        )  # fmt: skip
        return Instance(node, self._recorder, marks_fd)

    def _session(
        self, before: str, end: str, steps: int, second: Instance | None = None
    ) -> None:
        """One instance from its start to its end, on its own or beside a second."""
        rival = None
        if before == "lose":
            self._lose_node()
            rival = Rival(self._store, self._rng, HELD_MOST)
            self._marker.note(note="rival", held=rival.held)
        instance = self._instance(f"node{self._node}", self._marks_fd)
        self._marks_fd = instance.marks_fd
        nodes = [instance] if second is None else [instance, second]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(_connect(node)) for node in nodes]
            pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
            try:
                self._all(
                    pool, lambda w: w.begin(clients, before, lambda: instance.deaths)
                )
                if rival is not None:
                    rival.go_on()
                self._all(pool, lambda w: self._work(w, instance, steps))
                self._recorder.kill_in(0, frozenset())
                if end == "lose":
                    self._all(pool, lambda w: w.leave_open())
                left = clients if end == "stop" else clients[1:]
                self._all(pool, lambda w: w.close_all(left))
            finally:
                if end != "stop":
                    instance.stop(signal.SIGKILL)
        if end == "stop":
            instance.stop()
        if second is not None and end == "lose":
            self._lose_node()
        for worker in self._workers:
            worker.forget_handles()

    def _lose_node(self) -> None:
        self._node += 1
        self._forget_marks()

    def _go_on_alone(self, second: Instance, end: str, steps: int) -> None:
        """The second node takes over what the first had, and removes what is left."""
        with _connect(second) as client, ThreadPoolExecutor(WORKERS) as pool:
            self._all(pool, lambda w: w.begin([client], end, int))
            self._all(pool, lambda w: self._work(w, None, steps))
            client.wait_reclaimed()
            self._all(pool, lambda w: w.close_all([client]))

    def _all(self, pool: ThreadPoolExecutor, what: Callable[[Worker], None]) -> None:
        for done in [pool.submit(what, worker) for worker in self._workers]:
            done.result()

    def _work(self, worker: Worker, mortal: Instance | None, steps: int) -> None:
        with ThreadPoolExecutor(1) as flusher:
            for _ in range(steps):
                first = worker is self._workers[0]
                kills = first and self._rng.random() < self._plan.kills / steps
                if kills and mortal is not None:
                    self._kill(mortal)
                worker.step(flusher)
            worker.settle()

    def _kill(self, instance: Instance) -> None:
        """Before or after one of the next calls, or now."""
        rng = self._rng
        how = rng.randrange(3)
        self._marker.note(note="kill", how=how)
        if how == 0:
            self._recorder.kill_in(rng.randint(1, 20), NAMES | SYNCS)
        elif how == 1:
            self._recorder.kill_in(rng.randint(1, 60), DATA | NAMES | SYNCS)
        else:
            instance.kill(rng)


def _connect(instance: Instance) -> Client:
    client = instance.connect()
    client._messenger.patience = client._opener.patience = PATIENCE
    return client


def main(store: Path, log: Path, plan: int, seed: int, steps: int) -> None:
    """Run the workload on an empty store."""
    volume_handle._PATIENCE = PATIENCE
    for name in ("data", "maps"):
        (store / name).mkdir()
    Workload(PLANS[plan], store, log, seed).run(steps)


if __name__ == "__main__":
    assert threading.current_thread() is threading.main_thread()
    _, _store, _log, *_numbers = sys.argv
    main(Path(_store), Path(_log), *map(int, _numbers))
