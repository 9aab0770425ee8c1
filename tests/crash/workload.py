# SPDX-License-Identifier: Apache-2.0
"""The workload: random work on a recorded store, every step of it marked.

    python -m tests.crash.workload STORE SEED STEPS

runs under the recorder (`journal.build_recorder`).  Several threads work on volumes of
their own; flushes overlap writes; checkpoints, merging and reclaiming run all the
time; the instance is stopped and started in between.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import archipelago.control.maintenance as maintenance
from archipelago import Volume
from archipelago.client import Client
from archipelago.volume.context import Limits
from archipelago.volume.import_ import import_image
from tests.crash.model import payload
from tests.helpers.inprocess import running

BLOCK = 64 << 10
SECTOR = 4096
UNIT = 512
MOST_BYTES = 12 * BLOCK
#: Everything that runs in the background does so all the time.
LIMITS = Limits(checkpoint_bytes=600, stack_soft=3, stack_hard=4, stack_most=6)
WORKERS = 2
SESSIONS = 3
VOLUMES_MOST = 5


class Marker:
    """Puts marks into the recorder's log."""

    def __init__(self) -> None:
        self._put = ctypes.CDLL(None).crash_mark
        self._ids = itertools.count(1)

    @contextlib.contextmanager
    def op(self, op: str, **what: Any) -> Iterator[int]:
        """Mark the begin and, if it succeeds, the end of an operation."""
        number = next(self._ids)
        self._mark({"id": number, "op": op, **what})
        yield number
        self._mark({"end": number})

    def _mark(self, mark: dict[str, Any]) -> None:
        self._put(json.dumps(mark).encode())


@dataclass
class Known:
    """A volume or snapshot of one worker."""

    number: int
    name: str
    size: int
    read_only: bool
    handle: Volume | None = None


class Worker:
    """One thread of work."""

    numbers = itertools.count(1)

    def __init__(self, index: int, seed: int, marker: Marker, scratch: Path) -> None:
        self._seed = seed
        self._rng = random.Random(f"{seed}/{index}")
        self._marker = marker
        self._prefix = f"w{index}-"
        self._scratch = scratch / f"image{index}"
        self._serial = 0
        self._known: list[Known] = []
        self._flushes: list[Future[None]] = []

    def run(self, client: Client, steps: int) -> None:
        """Do so many steps, then close everything."""
        with ThreadPoolExecutor(1) as flusher:
            self._import(client)
            for _ in range(steps):
                self._step(client, flusher)
            self._settle()
        for known in self._known:
            self._close(known)

    def _step(self, client: Client, flusher: ThreadPoolExecutor) -> None:
        rng = self._rng
        writable = [k for k in self._known if not k.read_only]
        if not writable:
            self._create(client)
            return
        known = rng.choice(writable)
        choice = rng.randrange(100)
        if choice < 48:
            self._write(client, known)
        elif choice < 58:
            self._zero(client, known)
        elif choice < 74:
            self._flush(client, known, flusher)
        else:
            self._settle()
            self._change(client, known, choice)

    def _change(self, client: Client, known: Known, choice: int) -> None:
        while choice < 84 and len(self._known) >= VOLUMES_MOST:
            others = [k for k in self._known if k is not known]
            self._remove(client, self._rng.choice(others))
        if choice < 79:
            self._snapshot(client, known)
        elif choice < 84:
            self._clone(client)
        elif choice < 88:
            self._rename(client, self._rng.choice(self._known))
        elif choice < 92:
            self._resize(client, known)
        elif choice < 94:
            self._remove(client, self._rng.choice(self._known))
        elif choice < 96:
            self._import(client)
        elif choice < 97:
            self._create(client)
        else:
            self._close(known)

    # ---- contents --------------------------------------------------------------------

    def _open(self, client: Client, known: Known) -> Volume:
        if known.handle is None:
            known.handle = client.open(known.name)
        return known.handle

    def _close(self, known: Known) -> None:
        """The last close of a volume flushes it."""
        if known.handle is None:
            return
        with self._marker.op("flush", volume=known.number):
            known.handle.close()
        known.handle = None

    def _range(self, size: int) -> tuple[int, int]:
        """Aligned to a sector, a unit, or nothing; mostly short."""
        rng = self._rng
        grain = rng.choice([SECTOR, SECTOR, UNIT, 1])
        most = rng.choice([SECTOR, 4 * SECTOR, 2 * BLOCK])
        length = max(grain, rng.randrange(1, most + 1) // grain * grain)
        length = min(length, size)
        offset = rng.randrange(0, size - length + 1) // grain * grain
        return offset, length

    def _write(self, client: Client, known: Known) -> None:
        handle = self._open(client, known)
        offset, length = self._range(known.size)
        fua = self._rng.random() < 0.1
        what = {"offset": offset, "length": length, "fua": fua}
        with self._marker.op("write", volume=known.number, **what) as number:
            data = payload(self._seed, number, length)
            handle.pwrite(data, offset, durable=fua)

    def _zero(self, client: Client, known: Known) -> None:
        handle = self._open(client, known)
        offset, length = self._range(known.size)
        call = self._rng.choice([handle.zero, handle.discard])
        what = {"offset": offset, "length": length}
        with self._marker.op("zero", volume=known.number, **what):
            call(offset, length)

    def _flush(self, client: Client, known: Known, flusher: ThreadPoolExecutor) -> None:
        handle = self._open(client, known)

        def flush() -> None:
            with self._marker.op("flush", volume=known.number):
                handle.flush()

        if self._rng.random() < 0.5:
            self._flushes.append(flusher.submit(flush))
        else:
            flush()

    def _settle(self) -> None:
        """Wait for the flushes under way."""
        for flush in self._flushes:
            flush.result()
        self._flushes.clear()

    # ---- volumes ---------------------------------------------------------------------

    def _name(self) -> str:
        self._serial += 1
        return f"{self._prefix}{self._serial}"

    def _size(self) -> int:
        size = self._rng.randrange(SECTOR, MOST_BYTES)
        return size - size % self._rng.choice([1, UNIT, SECTOR])

    def _new(self, size: int, read_only: bool, name: str) -> Known:
        known = Known(next(self.numbers), name, size, read_only)
        self._known.append(known)
        return known

    def _create(self, client: Client) -> None:
        known = self._new(self._size(), False, self._name())
        what = {"name": known.name, "size": known.size, "read_only": False}
        with self._marker.op("create", volume=known.number, **what):
            client.create(known.name, known.size, block_size=BLOCK)

    def _snapshot(self, client: Client, source: Known) -> None:
        known = self._new(source.size, True, self._name())
        what = {"name": known.name, "size": known.size, "read_only": True}
        with self._marker.op(
            "create", volume=known.number, source=source.number, flushes=True, **what
        ):
            client.snapshot(source.name, known.name)

    def _clone(self, client: Client) -> None:
        snapshots = [k for k in self._known if k.read_only]
        if not snapshots:
            return
        source = self._rng.choice(snapshots)
        size = source.size
        if self._rng.random() < 0.3:
            size += self._rng.randrange(BLOCK)
        known = self._new(size, False, self._name())
        what = {"name": known.name, "size": size, "read_only": False}
        with self._marker.op(
            "create", volume=known.number, source=source.number, **what
        ):
            client.create(known.name, size, snap=source.name)

    def _import(self, client: Client) -> None:
        size = self._size()
        volume = self._rng.random() < 0.5
        known = self._new(size, not volume, self._name())
        offset = self._rng.randrange(size)
        pieces = [(offset, min(size - offset, 2 * BLOCK))]
        what = {"name": known.name, "size": size, "read_only": not volume}
        with self._marker.op(
            "create", volume=known.number, pieces=pieces, **what
        ) as number:
            image = bytearray(size)
            for start, length in pieces:
                image[start : start + length] = payload(
                    self._seed, number + start, length
                )
            self._scratch.write_bytes(image)
            import_image(client, self._scratch, known.name, volume, BLOCK)

    def _rename(self, client: Client, known: Known) -> None:
        name = self._name()
        with self._marker.op("rename", volume=known.number, name=name):
            client.rename(known.name, name)
        known.name = name

    def _resize(self, client: Client, known: Known) -> None:
        size = self._size()
        with self._marker.op("resize", volume=known.number, size=size):
            client.resize(known.name, size)
        known.size = size

    def _remove(self, client: Client, known: Known) -> None:
        self._close(known)
        self._known.remove(known)
        with self._marker.op("remove", volume=known.number):
            client.remove(known.name)


def main(store: Path, seed: int, steps: int) -> None:
    """Run the workload on an empty store."""
    maintenance._PERIOD = 0.01
    home = store.parent / "home"
    home.mkdir()
    for name in ("data", "maps"):
        (store / name).mkdir()
    marker = Marker()
    workers = [Worker(i, seed, marker, home) for i in range(WORKERS)]
    for _ in range(SESSIONS):
        with (
            running(home, store=store, limits=LIMITS, engine="threads") as instance,
            instance.connect() as client,
            ThreadPoolExecutor() as pool,
        ):
            share = steps // WORKERS // SESSIONS
            for done in [pool.submit(w.run, client, share) for w in workers]:
                done.result()


if __name__ == "__main__":
    assert threading.current_thread() is threading.main_thread()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
