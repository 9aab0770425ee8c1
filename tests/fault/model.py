# SPDX-License-Identifier: Apache-2.0
"""What a volume may hold after operations of which some failed.

Per unit of 512 bytes a set of numbers: what may be read now, and what may be found
after a restart.  A unit holds its number, over and over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

UNIT = 512
_UNIT = struct.Struct("<64Q")


class WrongData(AssertionError):
    """Bytes that were never written, or that were flushed and are not there."""


def filled(number: int, size: int) -> bytes:
    """Bytes of a write [bytes]: a whole number of units, all with its number."""
    return number.to_bytes(8, "little") * (size // 8)


@dataclass
class Expected:
    """One volume or snapshot.

    Attributes:
        name: of the volume.
        now: per unit, what a read may give.
        after: per unit, what a restart may leave.
        read_only: it is a snapshot.
    """

    name: str
    now: list[set[int]]
    after: list[set[int]] = field(default_factory=list)
    read_only: bool = False

    def __post_init__(self) -> None:
        if not self.after:
            self.after = [set(unit) for unit in self.now]

    @staticmethod
    def zeros(name: str, size: int) -> Expected:
        """A new volume of `size` bytes."""
        return Expected(name, [{0} for _ in range(size // UNIT)])

    @property
    def size(self) -> int:
        """[bytes]."""
        return len(self.now) * UNIT

    def written(self, offset: int, size: int, number: int, *, ok: bool) -> None:
        """A range was written, or may have been in part."""
        for unit in range(offset // UNIT, (offset + size) // UNIT):
            self.now[unit] = {number} if ok else self.now[unit] | {number}
            self.after[unit].add(number)

    def flushed(self) -> None:
        """What may be read now is what a restart leaves."""
        self.after = [set(unit) for unit in self.now]

    def unsure(self) -> None:
        """What was not flushed may be lost."""
        self.now = [a | b for a, b in zip(self.now, self.after, strict=True)]

    def resized(self, size: int) -> None:
        """It has this size now [bytes]; new space is zeros."""
        units = size // UNIT
        for row in (self.now, self.after):
            del row[units:]
            row.extend({0} for _ in range(units - len(row)))

    def copy(self, name: str, *, read_only: bool) -> Expected:
        """What a snapshot or clone of it holds, durably."""
        return Expected(name, [set(unit) for unit in self.now], read_only=read_only)

    def check(self, data: bytes) -> None:
        """Compare all that was read; what was read once is read again.

        Raises:
            WrongData: it cannot be.
        """
        if len(data) != self.size:
            raise WrongData(f'"{self.name}" has {len(data)} bytes, not {self.size}')
        for unit, allowed in enumerate(self.now):
            values = set(_UNIT.unpack_from(data, unit * UNIT))
            if len(values) != 1 or not values <= allowed:
                raise WrongData(
                    f'"{self.name}", unit {unit}: {sorted(values)}, '
                    f"not {sorted(allowed)}"
                )
            self.now[unit] = values
