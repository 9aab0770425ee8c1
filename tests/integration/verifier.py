# SPDX-License-Identifier: Apache-2.0
"""A client that knows every byte it may read, whatever dies on the other side.

Several connections, each with a region of one volume and many requests in flight, write
stamped units of 512 bytes and read them back.  A connection that is lost is made again
at once and what was unanswered is sent again.  A violation is: an answered write that
is not there, a unit that is neither old nor new after its write was cut off, an error
reply, a reply to nothing or a second one, a refused connection, silence for a minute.

Versions: an even number n is data stamped with n, an odd one (and 0) is zeros.
"""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.integration.nbdwire import FLAG_FUA, Command, Connection, Lost, Violation

UNIT = 512
#: Most units of one request.
_MOST = 64
_DEPTH = 8
_STAMP = struct.Struct("<8sIIQ")


def content(unit: int, version: int) -> bytes:
    """What a unit of the volume holds after that write."""
    if version == 0 or version & 1:
        return bytes(UNIT)
    stamp = _STAMP.pack(b"verified", unit, ~unit & 0xFFFFFFFF, version)
    return (stamp * (UNIT // len(stamp) + 1))[:UNIT]


def version_of(data: bytes) -> int:
    """The version that a unit says it holds; 0 for what is no stamp."""
    magic, _, _, version = _STAMP.unpack_from(data)
    return int(version) if magic == b"verified" else 0


def _describe(data: bytes) -> str:
    if data == bytes(UNIT):
        return "zeros"
    magic, unit, check, version = _STAMP.unpack_from(data)
    if magic == b"verified" and check == ~unit & 0xFFFFFFFF:
        whole = data == content(unit, version)
        return f"unit {unit}, version {version}{'' if whole else ', not whole'}"
    return f"foreign bytes {data[:16].hex()}"


@dataclass
class Operation:
    """One request until it is answered, however often it is sent."""

    command: Command
    first: int
    count: int
    version: int = 0
    flags: int = 0
    covers: dict[int, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def units(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def mutates(self) -> bool:
        return self.command in (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)


class Region:
    """The model: which versions each unit may have."""

    def __init__(self, first: int, count: int) -> None:
        self.units = range(first, first + count)
        self.answered = dict.fromkeys(self.units, 0)
        #: Versions since the last one that was flushed, oldest first.
        self.history = {unit: [0] for unit in self.units}
        #: Answered, and not known to be flushed.
        self.dirty: dict[int, int] = {}

    def complete(self, op: Operation) -> None:
        """An operation was answered."""
        if op.command is Command.FLUSH:
            for unit, version in op.covers.items():
                self._flushed(unit, version)
        elif op.mutates:
            for unit in op.units:
                self.answered[unit] = op.version
                self.history[unit].append(op.version)
                self.dirty[unit] = op.version
                if op.flags & FLAG_FUA:
                    self._flushed(unit, op.version)

    def _flushed(self, unit: int, version: int) -> None:
        history = self.history[unit]
        if version in history:
            del history[: history.index(version)]
        if self.dirty.get(unit) == version:
            del self.dirty[unit]

    def check(self, unit: int, data: bytes, allowed: Sequence[int], what: str) -> int:
        """The version that was read; one that is not allowed is a violation."""
        for version in allowed:
            if data == content(unit, version):
                return version
        raise Violation(
            f"{what}: unit {unit} holds {_describe(data)}; allowed: {list(allowed)}"
        )


class Worker(threading.Thread):
    """One connection and its region.

    Args:
        owner: the object that is told of progress.
        region: its part of the volume.
        seed: of what it does.
    """

    def __init__(self, owner: Verifier, region: Region, seed: int) -> None:
        super().__init__(name=f"verifier-{region.units.start}", daemon=True)
        self.failure: BaseException | None = None
        self.answers = 0
        self.connections = 0
        self.longest_pause = 0.0
        self.longest_request = 0.0
        self._owner = owner
        self._region = region
        self._rng = random.Random(seed)
        self._pending: list[Operation] = []
        self._sent: dict[int, Operation] = {}
        self._busy: set[int] = set()
        self._cookie = 0
        self._version = 0
        self._last_answer = time.monotonic()

    def run(self) -> None:
        try:
            while not self._session():
                self._owner.may_reconnect.wait()
        except BaseException as error:
            self.failure = error
        finally:
            self._owner.report_progress()

    def forget_pause(self) -> None:
        """Measure pauses anew from here."""
        self.longest_pause = self.longest_request = 0.0

    def _session(self) -> bool:
        """Serve one connection to its end; True when all is done."""
        orderly = self._owner.orderly
        try:
            connection = Connection(self._owner.path, self._owner.export)
        except Lost:
            return False
        except OSError as error:
            raise Violation(f"the connection was refused: {error}") from error
        self.connections += 1
        self._sent.clear()
        try:
            self._look_after_loss(connection)
            for op in self._pending:
                self._send(connection, op)
            self._work(connection)
            self._read_all(connection, [], "at the end")
            connection.disconnect()
        except Lost as lost:
            if lost.partial and orderly and self._owner.orderly:
                raise Violation(f"a reply was cut off: {lost}") from lost
            return False
        finally:
            connection.close()
        return True

    # ---- after a loss ----------------------------------------------------------------

    def _look_after_loss(self, connection: Connection) -> None:
        """What was cut off is old or new, and after a crash so is all not flushed."""
        cut_off = [op for op in self._pending if op.mutates]
        if self._owner.doubted is not None and self not in self._owner.doubted:
            self._read_all(connection, cut_off, "after a crash", history=True)
            self._owner.doubted.add(self)
            return
        for op in cut_off:
            data = self._read(connection, op.first, op.count)
            self._check_range(op.first, data, [op], "cut off", history=False)

    def _read_all(
        self,
        connection: Connection,
        cut_off: list[Operation],
        what: str,
        *,
        history: bool = False,
    ) -> None:
        step = _MOST * 4
        for first in self._region.units[::step]:
            count = min(step, self._region.units.stop - first)
            data = self._read(connection, first, count)
            self._check_range(first, data, cut_off, what, history=history)

    def _check_range(
        self,
        first: int,
        data: bytes,
        cut_off: list[Operation],
        what: str,
        *,
        history: bool,
    ) -> None:
        region = self._region
        news = {unit: op.version for op in cut_off for unit in op.units}
        for i in range(len(data) // UNIT):
            unit = first + i
            allowed = region.history[unit] if history else [region.answered[unit]]
            if unit in news:
                allowed = [*allowed, news[unit]]
            found = region.check(unit, data[i * UNIT : (i + 1) * UNIT], allowed, what)
            if history:
                region.answered[unit] = found
                region.history[unit] = [found]
                region.dirty.pop(unit, None)

    def _read(self, connection: Connection, first: int, count: int) -> bytes:
        """Read and wait; nothing else is in flight."""
        self._cookie += 1
        connection.send(Command.READ, self._cookie, first * UNIT, count * UNIT)
        reply = connection.receive_reply()
        if reply.cookie != self._cookie or reply.error:
            raise Violation(f"{reply} to READ {self._cookie} of unit {first}")
        data = connection.receive_data(count * UNIT)
        self._answered()
        return data

    # ---- the load --------------------------------------------------------------------

    def _work(self, connection: Connection) -> None:
        while True:
            while len(self._pending) < _DEPTH and not self._owner.finishing.is_set():
                op = self._invent()
                self._pending.append(op)
                self._send(connection, op)
            if not self._pending:
                return
            self._take_reply(connection)

    def _invent(self) -> Operation:
        rng, units = self._rng, self._region.units
        dice = rng.random()
        if dice < 0.06:
            return Operation(Command.FLUSH, 0, 0, covers=dict(self._region.dirty))
        while True:
            count = rng.choice((1, 3, 8, 8, 8, 16, rng.randrange(1, _MOST + 1)))
            first = rng.randrange(units.start, units.stop - count + 1)
            if count >= 8 and rng.random() < 0.7:
                first -= first % 8
            wanted = range(max(first, units.start), max(first, units.start) + count)
            if self._busy.isdisjoint(wanted):
                break
        self._busy.update(wanted)
        if dice < 0.4:
            return Operation(Command.READ, wanted.start, count)
        self._version += 2
        flags = FLAG_FUA if rng.random() < 0.05 else 0
        if dice < 0.9:
            return Operation(Command.WRITE, wanted.start, count, self._version, flags)
        command = Command.TRIM if dice < 0.95 else Command.WRITE_ZEROES
        return Operation(command, wanted.start, count, self._version + 1, flags)

    def _send(self, connection: Connection, op: Operation) -> None:
        self._cookie += 1
        self._sent[self._cookie] = op
        data = b""
        if op.command is Command.WRITE:
            data = b"".join(content(unit, op.version) for unit in op.units)
        connection.send(
            op.command,
            self._cookie,
            op.first * UNIT,
            op.count * UNIT,
            data,
            op.flags,
        )

    def _take_reply(self, connection: Connection) -> None:
        reply = connection.receive_reply()
        op = self._sent.pop(reply.cookie, None)
        if op is None:
            raise Violation(f"{reply} to nothing, or a second one")
        if reply.error:
            raise Violation(f"error {reply.error} to {op}")
        if op.command is Command.READ:
            data = connection.receive_data(op.count * UNIT)
            self._check_range(op.first, data, [], "read", history=False)
        self._pending.remove(op)
        self._busy.difference_update(op.units)
        self._region.complete(op)
        self.longest_request = max(self.longest_request, time.monotonic() - op.began)
        self._answered()

    def _answered(self) -> None:
        now = time.monotonic()
        self.longest_pause = max(self.longest_pause, now - self._last_answer)
        self._last_answer = now
        self.answers += 1
        self._owner.report_progress()


class Verifier:
    """Load on one volume, checked.

    Args:
        path: of the NBD server's unix socket.
        export: name of the volume; it reads as zeros.
        size: of it [bytes].
        seed: of what is done.
        connections: how many.

    Attributes:
        orderly: replies may not be cut off in the middle: set it before what is not a
            crash.
        doubted: while it is set, a worker that reconnects for the first time accepts
            that writes which were not flushed are lost.
    """

    def __init__(
        self, path: str, export: str, size: int, seed: int, connections: int = 3
    ) -> None:
        self.path = path
        self.export = export
        self.orderly = False
        self.doubted: set[Worker] | None = None
        self.finishing = threading.Event()
        self.may_reconnect = threading.Event()
        self.may_reconnect.set()
        self._progress = threading.Condition()
        share = size // UNIT // connections
        self.workers = [
            Worker(self, Region(i * share, share), seed + i) for i in range(connections)
        ]

    def __enter__(self) -> Verifier:
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finishing.set()
        self.may_reconnect.set()
        for worker in self.workers:
            worker.join()

    def report_progress(self) -> None:
        """Wake those that wait for answers (called by workers)."""
        with self._progress:
            self._progress.notify_all()

    def wait_answers(self, number: int) -> None:
        """Wait until every worker got that many more answers.

        Raises:
            Violation: a worker found one.
        """
        goals = [worker.answers + number for worker in self.workers]

        def reached() -> bool:
            return any(w.failure is not None for w in self.workers) or all(
                w.answers >= goal for w, goal in zip(self.workers, goals, strict=True)
            )

        with self._progress:
            self._progress.wait_for(reached)
        self._raise_failure()

    def hold(self) -> None:
        """From now on a client that loses its connection stays away."""
        self.may_reconnect.clear()

    def release(self, *, crashed: bool) -> None:
        """Reconnect; after a crash only what was flushed must be there."""
        self.doubted = set() if crashed else None
        self.may_reconnect.set()

    def forget_pauses(self) -> None:
        """Measure pauses anew."""
        for worker in self.workers:
            worker.forget_pause()

    @property
    def longest_pause(self) -> float:
        """Longest time between two answers of one connection [s]."""
        return max(worker.longest_pause for worker in self.workers)

    @property
    def longest_request(self) -> float:
        """Longest life of one request, however often it was sent [s]."""
        return max(worker.longest_request for worker in self.workers)

    def finish(self) -> None:
        """Let all that is under way end and read everything once more.

        Raises:
            Violation: a worker found one.
        """
        self.finishing.set()
        for worker in self.workers:
            worker.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        for worker in self.workers:
            if worker.failure is not None:
                raise worker.failure
