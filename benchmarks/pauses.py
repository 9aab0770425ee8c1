# SPDX-License-Identifier: Apache-2.0
"""How long I/O pauses when peers are killed or restarted.

Question: what is the longest time between two answers that a client sees, with requests
always under way?  The client is the verifier of the integration tests: three NBD
connections, eight requests each, every byte checked.  Its load keeps about one
processor busy; `busy` rows have a process more for each that does nothing but compute.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.report import Row
from tests.helpers.instance import Instance
from tests.integration.killing import pids
from tests.integration.verifier import Verifier

SIZE = 6 << 20
#: What users are promised [s].
LIMIT = 1.0
#: Between two rounds [s]: a new successor is prepared meanwhile.
REST = 1.5

Strike = Callable[[Instance], object]


def _kill(*names: str) -> Strike:
    def strike(instance: Instance) -> None:
        living = pids(instance)
        for pid in {living[name] for name in names}:
            os.kill(pid, signal.SIGKILL)

    return strike


def _restart(*peer: str) -> Strike:
    return lambda instance: instance.archipelago("restart", *peer)


_ALL = ("blockerb", "blockerm", "mapperd", "vlmcd")
WORK: dict[str, list[tuple[str, Strike]]] = {
    "together": [("kill -9 of the process", _kill("vlmcd")), ("restart", _restart())],
    "apart": [
        *((f"kill -9 of {name}", _kill(name)) for name in _ALL),
        ("kill -9 of all peers", _kill(*_ALL)),
        ("restart mapperd", _restart("mapperd")),
        ("restart", _restart()),
    ],
}
_ALSO_BUSY = ("kill -9 of the process", "kill -9 of all peers", "restart")


@contextlib.contextmanager
def _running(home: Path, placement: str) -> Iterator[Instance]:
    home.mkdir(parents=True)
    instance = Instance(home, {"placement": placement, "backend": "file"})
    instance.start()
    try:
        yield instance
    finally:
        instance.stop()
        shutil.rmtree(home)


def _compute() -> None:
    while True:
        pass


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Every processor has something else to do."""
    spawn = multiprocessing.get_context("spawn")
    burners = [
        spawn.Process(target=_compute, daemon=True) for _ in range(os.cpu_count() or 1)
    ]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


def _measure(instance: Instance, what: str, strike: Strike, rounds: int) -> Row:
    volume = f"v-{time.monotonic_ns()}"
    instance.vlmc("create", volume, "--size", f"{SIZE >> 20}M")
    pauses = []
    path = instance.status()["nbd"][0]
    with Verifier(path, volume, SIZE, random.getrandbits(32)) as verifier:
        for _ in range(rounds):
            verifier.wait_answers(100)
            time.sleep(REST)
            verifier.forget_pauses()
            strike(instance)
            verifier.wait_answers(100)
            pauses.append(verifier.longest_pause)
        verifier.finish()
    longest = max(pauses)
    return Row(
        f"{what}, {instance.settings['placement']}",
        f"{median(pauses) * 1e3:.0f} ms, longest {longest * 1e3:.0f} ms",
        f"promised {LIMIT * 1e3:.0f} ms",
        LIMIT / longest,
        1.0,
    )


def pauses(work: Path, rounds: int) -> tuple[list[Row], list[str]]:
    """Every victim in turn, median and longest of so many rounds."""
    rows = []
    for placement, strikes in WORK.items():
        with _running(work / placement, placement) as instance:
            for what, strike in strikes:
                rows.append(_measure(instance, what, strike, rounds))
                if what in _ALSO_BUSY:
                    with _busy():
                        rows.append(_measure(instance, f"{what}, busy", strike, rounds))
    return rows, [f"{rounds} rounds each; ratio: promised / longest"]
