# SPDX-License-Identifier: Apache-2.0
"""What one thread of a node wrote: in shared memory, so that it survives its death.

A lane is one thread of a writer process.  It notes each operation before it sends it,
counts it when it is answered, and raises the mark of what is flushed when a flush is
answered.  Whoever judges reads the same memory, whatever happened to the lane.

Every 512-byte unit that a lane writes says who wrote it: the tenure (counted by the
test, one for each time that a node opens the volume), the node, the lane, the number of
the operation, and the unit itself.
"""

from __future__ import annotations

import enum
import mmap
import struct
from dataclasses import dataclass

UNIT = 512
ZEROS = bytes(UNIT)

_STAMP = struct.Struct("<8sQIIQQ24x")
_MAGIC = b"A-STAMP\0"
#: Words of 8 bytes: started, answered, flushed, state, error, tenure.
_HEAD_BYTES = 4096
_RECORD = struct.Struct("<IHH")


class State(enum.IntEnum):
    """What a lane is doing."""

    IDLE = 0
    RUNNING = 1
    #: asked to stop, and all it sent was answered well
    HALTED = 2
    #: an answer was an error; see `History.error`
    FAILED = 3
    #: it read something else than it had written
    WRONG = 4
    #: its process was killed
    KILLED = 5


class Kind(enum.IntFlag):
    """What an operation was."""

    WRITE = 0
    ZERO = 1
    #: answered with FUA: durable by itself
    DURABLE = 2


@dataclass(frozen=True)
class Stamp:
    """What a unit says about itself."""

    tenure: int
    node: int
    lane: int
    number: int
    unit: int

    def __str__(self) -> str:
        return (
            f"tenure {self.tenure} of node {self.node}, lane {self.lane}, operation "
            f"{self.number}, unit {self.unit}"
        )

    def to_bytes(self) -> bytes:
        """All bytes of the unit."""
        head = _STAMP.pack(
            _MAGIC, self.tenure, self.node, self.lane, self.number, self.unit
        )
        return head * (UNIT // _STAMP.size)

    @classmethod
    def read(cls, data: bytes) -> Stamp | None:
        """What a unit says; None for zeros.

        Raises:
            ValueError: it is neither one stamp nor zeros.
        """
        if data == ZEROS:
            return None
        magic, *rest = _STAMP.unpack_from(data)
        if magic != _MAGIC or data != data[: _STAMP.size] * (UNIT // _STAMP.size):
            raise ValueError("a unit that is torn, or that nobody wrote")
        return cls(*rest)


class History:
    """The operations of one lane in one tenure.

    Args:
        node: number of the node.
        lane: number of the lane, over all lanes of the node.
        capacity: most operations.
    """

    def __init__(self, node: int, lane: int, capacity: int = 1 << 17) -> None:
        self.node = node
        self.lane = lane
        self.capacity = capacity
        self._memory = mmap.mmap(-1, _HEAD_BYTES + capacity * _RECORD.size)
        # Stored in one piece: struct.pack_into clears first what it writes, and who
        # judges may look just then.
        self._words = memoryview(self._memory).cast("Q")

    # The words of the head.  Each has one writer at a time: the lane while it runs,
    # the judge while it does not.

    def _get(self, index: int) -> int:
        return self._words[index]

    def _set(self, index: int, value: int) -> None:
        self._words[index] = value

    @property
    def started(self) -> int:
        """Operations that were sent, or are about to be."""
        return self._get(0)

    @property
    def answered(self) -> int:
        """Operations that were answered well."""
        return self._get(1)

    @property
    def flushed(self) -> int:
        """Operations that a flush which was answered well covers."""
        return self._get(2)

    @property
    def state(self) -> State:
        """What the lane is doing."""
        return State(self._get(3))

    @state.setter
    def state(self, state: State) -> None:
        self._set(3, state)

    @property
    def error(self) -> int:
        """The errno that ended it."""
        return self._get(4)

    @property
    def tenure(self) -> int:
        """In which tenure this is."""
        return self._get(5)

    def reset(self, tenure: int) -> None:
        """Start anew."""
        for index, value in enumerate((0, 0, 0, State.IDLE, 0, tenure)):
            self._set(index, value)

    @property
    def full(self) -> bool:
        """True if no operation can be noted any more."""
        return self.started >= self.capacity

    def begin(self, first: int, units: int, kind: Kind) -> int:
        """Note an operation that is about to be sent; returns its number."""
        number = self.started
        at = _HEAD_BYTES + number * _RECORD.size
        _RECORD.pack_into(self._memory, at, first, units, kind)
        self._set(0, number + 1)
        return number

    def end(self, number: int, *, durable: bool) -> None:
        """Note that an operation was answered well."""
        if durable:
            # The low byte of its kind.
            self._memory[_HEAD_BYTES + number * _RECORD.size + 6] |= Kind.DURABLE
        self._set(1, number + 1)

    def flush_done(self, answered: int) -> None:
        """Note that a flush was answered well that was sent after `answered` were."""
        self._set(2, max(self.flushed, answered))

    def fail(self, error: int) -> None:
        """Note the error that ends the lane."""
        self._set(4, error)
        self.state = State.FAILED

    def records(self, count: int) -> list[tuple[int, int, Kind]]:
        """First unit, units and kind of the first `count` operations."""
        end = _HEAD_BYTES + count * _RECORD.size
        raw = self._memory[_HEAD_BYTES:end]
        return [(f, n, Kind(k)) for f, n, k in _RECORD.iter_unpack(raw)]

    def value(self, number: int, unit: int, kind: Kind) -> bytes:
        """The bytes of one unit of an operation."""
        if kind & Kind.ZERO:
            return ZEROS
        return Stamp(self.tenure, self.node, self.lane, number, unit).to_bytes()
