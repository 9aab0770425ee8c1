# SPDX-License-Identifier: Apache-2.0
"""A writer process of a node: some lanes (threads) that write, flush and read back.

A lane goes on until it is asked to stop or is answered with an error.  It writes only
to its own blocks, so that the operations on a unit have an order.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from archipelago import ArchipelagoError, Client, Volume, connect
from tests.nodes.history import UNIT, History, Kind, State
from tests.nodes.nbd import NbdDisk

#: Units of a block of the volume.
BLOCK_UNITS = 128
_SECTOR_UNITS = 8
_MOST_UNITS = 40


class _Disk(Protocol):
    def pread(self, size: int, offset: int) -> bytes: ...
    def pwrite(self, data: bytes, offset: int, *, durable: bool = ...) -> object: ...
    def zero(self, offset: int, size: int) -> None: ...
    def flush(self) -> None: ...


class Writer:
    """Commands for the lanes of one process, see `tests.nodes.process`.

    Args:
        home: of the instance.
        volume: name of the volume.
        histories: one for each lane.
        lanes: of the whole node.
        blocks: of the volume.
    """

    def __init__(
        self,
        home: Path,
        volume: str,
        histories: Sequence[History],
        lanes: int,
        blocks: int,
    ) -> None:
        self._home = home
        self._name = volume
        self._histories = histories
        self._lanes = lanes
        self._blocks = blocks
        self._client: Client | None = None
        self._volume: Volume | None = None
        self._disks: list[NbdDisk] = []
        self._threads: list[threading.Thread] = []
        self._halt = threading.Event()

    def open(self, nbd: bool) -> None:
        """Open the volume."""
        if self._client is None:
            self._client = connect(self._home)
        if nbd:
            socket = self._client.settings.nbd_socket
            for _ in self._histories:
                self._disks.append(NbdDisk(socket, self._name))
        else:
            self._volume = self._client.open(self._name)

    def go(self, seed: int, pace: int) -> None:
        """Let the lanes run.

        Args:
            seed: of what they do.
            pace: mean number of operations between two flushes.
        """
        self._halt.clear()
        self._threads = []
        for index, history in enumerate(self._histories):
            disk = self._disks[index] if self._disks else self._volume
            assert disk is not None
            rng = random.Random(seed + index)
            args = (history, disk, rng, pace)
            history.state = State.RUNNING
            self._threads.append(threading.Thread(target=self._run, args=args))
        for thread in self._threads:
            thread.start()

    def halt(self) -> None:
        """Ask the lanes to stop and wait until they have."""
        self._halt.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def close(self) -> None:
        """Close the volume, also if it is lost."""
        disks, self._disks = self._disks, []
        for disk in disks:
            disk.close()
        volume, self._volume = self._volume, None
        if volume is not None:
            volume.close()

    def _run(
        self, history: History, disk: _Disk, rng: random.Random, pace: int
    ) -> None:
        lane = _Lane(history, disk, rng, self._lanes, self._blocks)
        try:
            while not self._halt.is_set() and not history.full:
                lane.step(pace)
            history.state = State.HALTED
        except AssertionError:
            history.state = State.WRONG
        except ArchipelagoError as error:
            history.fail(error.number)
        except OSError as error:
            history.fail(error.errno or 0)
        except BaseException:
            history.fail(0)
            raise


class _Lane:
    """One thread's work in one tenure."""

    def __init__(
        self, history: History, disk: _Disk, rng: random.Random, lanes: int, blocks: int
    ) -> None:
        self._history = history
        self._disk = disk
        self._rng = rng
        self._lanes = lanes
        self._own = range(history.lane, blocks, lanes)
        #: for the units written in this tenure: by which operation
        self._last: dict[int, tuple[int, Kind]] = {}

    def step(self, pace: int) -> None:
        """Do one operation."""
        rng = self._rng
        dice = rng.random()
        if dice < 1 / pace:
            self._flush()
            return
        first, units = self._range()
        if dice > 0.95:
            self._read(first, units)
            return
        durable = dice > 0.95 - 1 / (2 * pace)
        self._write(first, units, zero=rng.random() < 0.06, durable=durable)

    def _range(self) -> tuple[int, int]:
        rng = self._rng
        block = rng.choice(self._own)
        first = rng.randrange(BLOCK_UNITS)
        units = rng.randint(1, _MOST_UNITS)
        if rng.random() < 0.5:
            first -= first % _SECTOR_UNITS
            units += -units % _SECTOR_UNITS
        units = min(units, BLOCK_UNITS - first)
        return block * BLOCK_UNITS + first, units

    def _flush(self) -> None:
        answered = self._history.answered
        self._disk.flush()
        self._history.flush_done(answered)

    def _write(self, first: int, units: int, *, zero: bool, durable: bool) -> None:
        history = self._history
        kind = Kind.ZERO if zero else Kind.WRITE
        number = history.begin(first, units, kind)
        if zero:
            self._disk.zero(first * UNIT, units * UNIT)
            durable = False
        else:
            values = [
                history.value(number, unit, kind)
                for unit in range(first, first + units)
            ]
            self._disk.pwrite(b"".join(values), first * UNIT, durable=durable)
        history.end(number, durable=durable)
        for unit in range(first, first + units):
            self._last[unit] = number, kind

    def _read(self, first: int, units: int) -> None:
        data = self._disk.pread(units * UNIT, first * UNIT)
        for index in range(units):
            known = self._last.get(first + index)
            if known is not None:
                got = data[index * UNIT : (index + 1) * UNIT]
                assert got == self._history.value(known[0], first + index, known[1])
