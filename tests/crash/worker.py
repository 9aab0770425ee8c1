# SPDX-License-Identifier: Apache-2.0
"""One thread of work on volumes of its own."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archipelago import BackendUnavailable, LeaseHeld, LeaseLost, NotRunning, Volume
from archipelago.client import Client
from archipelago.images.import_ import import_image
from tests.crash.instance import BLOCK
from tests.crash.marker import Marker
from tests.crash.model import payload
from tests.helpers.cluster import until

SECTOR = 4096
UNIT = 512
MOST_BYTES = 12 * BLOCK
VOLUMES_MOST = 5
#: How often a step first gives its volume to another node, if there is one.
MOVES = 0.15
#: What a node writes after it lost the lease: it may never be read.
LATE = b"\xee" * SECTOR
#: A death cut a change off: the worker must look whether it happened.
CUT_OFF = (NotRunning, BackendUnavailable)


@dataclass
class Known:
    """A volume or snapshot of one worker.

    Attributes:
        client: of the node that has it.
        doubtful: a change of it was answered with an error, and may have happened or
            still happen: left alone until the next session.
        wrote: whether something was written through `handle`.
        deaths: how many processes had died when `handle` was opened.
    """

    number: int
    name: str
    size: int
    read_only: bool
    client: Client
    handle: Volume | None = None
    doubtful: bool = False
    wrote: bool = False
    deaths: int = 0


@dataclass
class Doubt:
    """A change that was not answered.

    Attributes:
        number: of the operation.
        happened: finds out.
        conclude: told whether it happened.
    """

    number: int
    happened: Callable[[Client], bool]
    conclude: Callable[[bool], None]


class Worker:
    """One thread of work.

    Reads, writes, flushes, opens and closes do not see a death.  A change may be cut
    off: then the worker has to look.

    Args:
        index: which one.
        seed: of the workload.
        marker: of the log.
        scratch: directory for images.
        killed: peers are killed meanwhile, so changes may be cut off.
        depth: of a stack that is there from the start on [entries].
    """

    numbers = itertools.count(1)

    def __init__(
        self,
        index: int,
        seed: int,
        marker: Marker,
        scratch: Path,
        killed: bool,
        depth: int,
    ) -> None:
        self._seed = seed
        self._rng = random.Random(f"{seed}/{index}")
        self._marker = marker
        self._prefix = f"w{index}-"
        self._scratch = scratch / f"image{index}"
        self._killed = killed
        self._depth = depth
        self._serial = 0
        self._known: list[Known] = []
        self._doubts: list[Doubt] = []
        self._flushes: list[Future[None]] = []
        self._clients: Sequence[Client] = ()
        self._deaths: Callable[[], int] = int

    # ---- sessions --------------------------------------------------------------------

    def begin(
        self, clients: Sequence[Client], before: str, deaths: Callable[[], int]
    ) -> None:
        """Find out what there is: all that was answered, unless a node was lost.

        Args:
            clients: of the nodes of the new session.
            before: how the last one ended (`plans.Plan.ends`), or "none".
            deaths: says how many processes of the new session have died.
        """
        self._clients, self._deaths = clients, deaths
        for doubt in self._doubts:
            happened = doubt.happened(self._any_client())
            self._marker.note(settle=doubt.number, happened=happened)
            doubt.conclude(happened)
        self._doubts.clear()
        for known in self._known:
            known.doubtful = False
            known.client = self._any_client()
            self._find(known, strict=before != "lose")
        if before == "none":
            self._import()
            self._pile_up()

    def close_all(self, clients: Sequence[Client]) -> None:
        """Close what is open on these nodes."""
        for known in self._known:
            if known.client in clients:
                self._close(known)

    def forget_handles(self) -> None:
        """Their instance is gone."""
        for known in self._known:
            known.handle = None

    def step(self, flusher: ThreadPoolExecutor) -> None:
        """Do something."""
        rng = self._rng
        writable = self._writable()
        if not writable:
            self._create()
            return
        known = rng.choice(writable)
        if len(self._clients) > 1 and rng.random() < MOVES:
            self._move(known)
        choice = rng.randrange(100)
        if choice < 48:
            self._write(known)
        elif choice < 58:
            self._zero(known)
        elif choice < 74:
            self._flush(known, flusher)
        else:
            self.settle()
            self._change(known, choice)

    def settle(self) -> None:
        """Wait for the flushes under way."""
        for flush in self._flushes:
            flush.result()
        self._flushes.clear()

    def leave_open(self) -> None:
        """Let the end of the session find a write that was not flushed."""
        if writable := self._writable():
            self._write(self._rng.choice(writable))

    def _any_client(self) -> Client:
        return self._rng.choice(self._clients)

    def _usable(self) -> list[Known]:
        return [known for known in self._known if not known.doubtful]

    def _writable(self) -> list[Known]:
        return [known for known in self._usable() if not known.read_only]

    def _change(self, known: Known, choice: int) -> None:
        while choice < 84 and len(self._usable()) >= VOLUMES_MOST:
            others = [k for k in self._usable() if k is not known]
            self._remove(self._rng.choice(others))
        if choice < 79:
            self._snapshot(known)
        elif choice < 84:
            self._clone()
        elif choice < 88:
            self._rename(self._rng.choice(self._usable()))
        elif choice < 92:
            self._resize(known)
        elif choice < 94:
            self._remove(self._rng.choice(self._usable()))
        elif choice < 96:
            self._import()
        elif choice < 97:
            self._create()
        else:
            self._close(known)

    # ---- contents --------------------------------------------------------------------

    def _open(self, known: Known) -> Volume:
        if known.handle is None:
            known.deaths = self._deaths()
            known.handle = known.client.open(known.name)
            known.wrote = False
        return known.handle

    def _find(self, known: Known, strict: bool) -> None:
        data = self._open(known).pread(known.size, 0)
        self._marker.note(data, found=known.number, strict=strict)

    def _move(self, known: Known) -> None:
        """Let another node have a volume: it was given back, or its lease is broken.

        The holder until then is refused.  What vlmcd had open when it died was
        not given back.
        """
        self.settle()
        handle, known_deaths = known.handle, known.deaths
        breaks = handle is not None and self._rng.random() < 0.5
        if breaks:
            known.handle = None
        else:
            self._close(known)
        others = [client for client in self._clients if client is not known.client]
        known.client = self._rng.choice(others)
        strict = not breaks and known_deaths == self._deaths()
        if not strict:
            until(lambda: self._break(known), f"the lease of {known.name} is broken")
        until(lambda: self._is_free(known), f"{known.name} can be opened")
        self._find(known, strict)
        self._marker.note(note="moved", broken=breaks)
        if handle is not None and breaks:
            self._refuses(handle)

    def _is_free(self, known: Known) -> bool:
        """A change of a closed volume is answered just before it is closed again."""
        try:
            self._open(known)
        except LeaseHeld:
            return False
        return True

    def _break(self, known: Known) -> bool:
        """False if a death cut it off: it is repeated, which does no harm."""
        try:
            known.client.unlock(known.name, force=True)
        except CUT_OFF:
            if not self._killed:
                raise
            return False
        return True

    def _refuses(self, handle: Volume) -> None:
        """A node that was not told yet may still answer a write, but no flush."""
        try:
            handle.pwrite(LATE[: handle.size], 0)
            handle.flush()
        except (LeaseLost, LeaseHeld):
            return
        raise AssertionError(
            f"{handle.name} is flushed by a node that has lost its lease"
        )

    def _close(self, known: Known) -> None:
        """The last close of a volume flushes it.

        If vlmcd died it does not have it open, and then only what was written through
        this handle is flushed on its account; older marks wait in the mapper's memory.
        """
        handle, known.handle = known.handle, None
        if handle is None:
            return
        number = self._marker.begin("flush", volume=known.number)
        handle.close()
        if known.wrote or known.deaths == self._deaths():
            self._marker.note(end=number)

    def _range(self, size: int) -> tuple[int, int]:
        """Aligned to a sector, a unit, or nothing; mostly short."""
        rng = self._rng
        grain = rng.choice([SECTOR, SECTOR, UNIT, 1])
        most = rng.choice([SECTOR, 4 * SECTOR, 2 * BLOCK])
        length = max(grain, rng.randrange(1, most + 1) // grain * grain)
        length = min(length, size)
        offset = rng.randrange(0, size - length + 1) // grain * grain
        return offset, length

    def _write(self, known: Known) -> None:
        offset, length = self._range(known.size)
        fua = self._rng.random() < 0.1
        what = {"offset": offset, "length": length, "fua": fua}
        with self._marker.op("write", volume=known.number, **what) as number:
            data = payload(self._seed, number, length)
            self._open(known).pwrite(data, offset, durable=fua)
        known.wrote = True

    def _zero(self, known: Known) -> None:
        offset, length = self._range(known.size)
        discards = self._rng.random() < 0.5
        with self._marker.op("zero", volume=known.number, offset=offset, length=length):
            volume = self._open(known)
            (volume.discard if discards else volume.zero)(offset, length)
        known.wrote = True

    def _flush(self, known: Known, flusher: ThreadPoolExecutor) -> None:
        volume = self._open(known)

        def flush() -> None:
            with self._marker.op("flush", volume=known.number):
                volume.flush()

        if self._rng.random() < 0.5:
            self._flushes.append(flusher.submit(flush))
        else:
            flush()

    # ---- volumes ---------------------------------------------------------------------

    def _try(
        self,
        op: str,
        known: list[Known],
        call: Callable[[int], object],
        happened: Callable[[Client], bool],
        conclude: Callable[[bool], None],
        **what: Any,
    ) -> None:
        """Change something.

        Args:
            op: how the model calls it.
            known: what must be left alone if no answer says whether it happened.
            call: does it, given the number of the operation.
            happened: finds out later.
            conclude: told whether it happened, now or later.
            what: for the model.
        """
        number = self._marker.begin(op, volume=known[0].number, **what)
        try:
            call(number)
        except CUT_OFF as error:
            if not self._killed:
                raise
            self._marker.note(note="refused", error=str(error))
        else:
            self._marker.note(end=number)
            conclude(True)
            return
        for each in known:
            each.doubtful = True
        self._doubts.append(Doubt(number, happened, conclude))

    def _name(self) -> str:
        self._serial += 1
        return f"{self._prefix}{self._serial}"

    def _size(self) -> int:
        size = self._rng.randrange(SECTOR, MOST_BYTES)
        return size - size % self._rng.choice([1, UNIT, SECTOR])

    def _make(
        self,
        size: int,
        read_only: bool,
        call: Callable[[Client, int, str], object],
        others: tuple[Known, ...] = (),
        **what: Any,
    ) -> None:
        """Make a volume: `call` gets a node, the operation's number, the name."""
        client = others[0].client if others else self._any_client()
        known = Known(next(self.numbers), self._name(), size, read_only, client)
        self._known.append(known)

        def conclude(happened: bool) -> None:
            if not happened:
                self._known.remove(known)

        self._try(
            "create",
            [known, *others],
            lambda number: call(client, number, known.name),
            lambda later: later.exists(known.name),
            conclude,
            name=known.name,
            size=size,
            read_only=read_only,
            **what,
        )

    def _create(self) -> None:
        size = self._size()
        self._make(
            size,
            False,
            lambda client, _, name: client.create(name, size, block_size=BLOCK),
        )

    def _snapshot(self, source: Known) -> None:
        self._make(
            source.size,
            True,
            lambda client, _, name: client.snapshot(source.name, name),
            (source,),
            source=source.number,
            flushes=True,
        )

    def _pile_up(self) -> None:
        """Make a volume of many snapshots, each of which adds to its stack."""
        if not self._depth:
            return
        self._create()
        volume = self._known[-1]
        for _ in range(self._depth):
            self._write(volume)
            self._snapshot(volume)

    def _clone(self) -> None:
        snapshots = [k for k in self._usable() if k.read_only]
        if not snapshots:
            return
        source = self._rng.choice(snapshots)
        size = source.size
        if self._rng.random() < 0.3:
            size += self._rng.randrange(BLOCK)
        self._make(
            size,
            False,
            lambda client, _, name: client.create(name, size, snap=source.name),
            source=source.number,
        )

    def _import(self) -> None:
        size = self._size()
        volume = self._rng.random() < 0.5
        start = self._rng.randrange(size)
        length = min(size - start, 2 * BLOCK)

        def call(client: Client, number: int, name: str) -> None:
            image = bytearray(size)
            image[start : start + length] = payload(self._seed, number + start, length)
            self._scratch.write_bytes(image)
            import_image(client, self._scratch, name, volume, BLOCK)

        self._make(size, not volume, call, pieces=[(start, length)])

    def _rename(self, known: Known) -> None:
        name = self._name()

        def conclude(happened: bool) -> None:
            if happened:
                known.name = name

        self._try(
            "rename",
            [known],
            lambda _: known.client.rename(known.name, name),
            lambda later: later.exists(name),
            conclude,
            name=name,
        )

    def _resize(self, known: Known) -> None:
        size = self._size()

        def conclude(happened: bool) -> None:
            if happened:
                known.size = size

        self._try(
            "resize",
            [known],
            lambda _: known.client.resize(known.name, size),
            lambda later: later.info(known.name, usage=False).size == size,
            conclude,
            size=size,
        )

    def _remove(self, known: Known) -> None:
        self._close(known)

        def conclude(happened: bool) -> None:
            if happened:
                self._known.remove(known)

        def removed() -> bool:
            """False if another node merges its tables just now: that ends soon."""
            try:
                known.client.remove(known.name)
            except LeaseHeld:
                return False
            return True

        self._try(
            "remove",
            [known],
            lambda _: until(removed, f"{known.name} is free to be removed"),
            lambda later: not later.exists(known.name),
            conclude,
        )
