# SPDX-License-Identifier: Apache-2.0
"""The model: what volumes may hold after a power cut, from the workload's marks.

The workload marks the begin and the end (the acknowledgement) of each operation in the
log.  For every 512-byte unit the model keeps what the last finished FLUSH promised and
all values written since; for every volume the names and sizes it may have.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

UNIT = 512

Mark = dict[str, Any]


def payload(seed: int, number: int, length: int) -> bytes:
    """The bytes that operation `number` writes; some of them are zeros."""
    rng = random.Random(f"{seed}/{number}")
    if rng.random() < 0.05:
        return bytes(length)
    return rng.randbytes(length)


@dataclass
class _Written:
    """Values of some units that no flush covers yet."""

    begun: int
    values: dict[int, bytes]
    ended: int | None = None


@dataclass(eq=False)
class Expected:
    """One volume.

    Attributes:
        names: what it may be called; None stands for not being there.
        sizes: what size it may have [bytes]; the last one is the newest.
        base: what is promised, as long as the newest size in whole units.
        pending: newer values, oldest first.
        current: what a read gives.
        version: grows with each change of what is allowed.
        unsure: what a change that was not answered may not have made durable although
            it happened: "create" or "resize"; the next flush makes it so.
    """

    names: list[str | None]
    sizes: list[int]
    base: bytearray
    read_only: bool
    pending: list[_Written] = field(default_factory=list)
    current: bytearray = field(default_factory=bytearray)
    version: int = 0
    unsure: set[str] = field(default_factory=set)


class WrongAnswer(Exception):
    """A running instance gave something that the model forbids."""


class Model:
    """All volumes, as far as the marks up to the cut tell.

    Args:
        seed: of the workload.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._clock = 0
        self._open: dict[int, Mark] = {}
        self._begun: dict[int, Any] = {}
        self.volumes: dict[int, Expected] = {}

    def take(self, text: str, data: bytes = b"") -> None:
        """Take the next mark.

        Raises:
            WrongAnswer: a running instance did not hold what it must.
        """
        self._clock += 1
        mark: Mark = json.loads(text)
        if "end" in mark:
            begun = self._open.pop(mark["end"])
            getattr(self, "_end_" + begun["op"])(begun)
        elif "found" in mark:
            self._find(mark, data)
        elif "settle" in mark:
            begun = self._open.pop(mark["settle"])
            self._settle(begun, mark["happened"])
        elif "id" in mark:
            self._open[mark["id"]] = mark
            getattr(self, "_begin_" + mark["op"])(mark)

    # ---- contents --------------------------------------------------------------------

    def _begin_write(self, mark: Mark) -> None:
        data = payload(self._seed, mark["id"], mark["length"])
        self._write(mark, data)

    def _begin_zero(self, mark: Mark) -> None:
        self._write(mark, bytes(mark["length"]))

    def _write(self, mark: Mark, data: bytes) -> None:
        volume = self.volumes[mark["volume"]]
        start = mark["offset"]
        end = start + len(data)
        volume.current[start:end] = data
        first, last = start // UNIT, -(-end // UNIT)
        values = {
            unit: bytes(volume.current[unit * UNIT : (unit + 1) * UNIT])
            for unit in range(first, last)
        }
        written = _Written(self._clock, values)
        volume.pending.append(written)
        volume.version += 1
        self._begun[mark["id"]] = written

    def _end_write(self, mark: Mark) -> None:
        written = self._begun.pop(mark["id"])
        written.ended = self._clock
        if mark.get("fua"):
            self._promise(self.volumes[mark["volume"]], self._clock, written)

    def _end_zero(self, mark: Mark) -> None:
        self._begun.pop(mark["id"]).ended = self._clock

    def _begin_flush(self, mark: Mark) -> None:
        self._begun[mark["id"]] = self._clock

    def _end_flush(self, mark: Mark) -> None:
        volume = self.volumes[mark["volume"]]
        self._promise(volume, self._begun.pop(mark["id"]))
        if "create" in volume.unsure:
            volume.names = [name for name in volume.names if name is not None]
        if "resize" in volume.unsure:
            del volume.sizes[:-1]
        volume.unsure.clear()

    def _find(self, mark: Mark, data: bytes) -> None:
        """A new session read a whole volume.

        With "strict" nothing was lost that was answered.  Otherwise another node has
        taken the volume over: it holds what was flushed and any of what was not, and
        from now on just this, which the next flush makes durable.
        """
        volume = self.volumes[mark["found"]]
        if mark["strict"]:
            if data != volume.current[: len(data)]:
                unit = next(
                    i
                    for i in range(0, len(data), UNIT)
                    if data[i : i + UNIT] != volume.current[i : i + UNIT]
                )
                raise WrongAnswer(
                    f"{volume.names} has lost what was written and answered: byte "
                    f"{unit} is {_show(data[unit : unit + UNIT])}, not "
                    f"{_show(bytes(volume.current[unit : unit + UNIT]))}"
                )
            return
        wrong = differs(volume, data, len(data))
        if wrong:
            raise WrongAnswer(f"{volume.names} after another node came: {wrong}")
        volume.current[: len(data)] = data
        units = range(-(-len(data) // UNIT))
        now = {u: bytes(volume.current[u * UNIT : (u + 1) * UNIT]) for u in units}
        values = {
            unit: value
            for unit, value in now.items()
            if value != volume.base[unit * UNIT : (unit + 1) * UNIT]
        }
        # What it does not show has lost its mark, and nothing brings that back.
        volume.pending = [_Written(self._clock, values, self._clock)]
        volume.version += 1

    def _promise(
        self, volume: Expected, horizon: int, last: _Written | None = None
    ) -> None:
        """All that ended before `horizon` is durable from now on."""
        kept = []
        for written in volume.pending:
            ended = written.ended is not None and written.ended <= horizon
            if ended and (last is None or written.begun <= last.begun):
                for unit, value in written.values.items():
                    volume.base[unit * UNIT : unit * UNIT + len(value)] = value
            else:
                kept.append(written)
        volume.pending = kept
        volume.version += 1

    # ---- volumes ---------------------------------------------------------------------

    def _settle(self, mark: Mark, happened: bool) -> None:
        """A change was answered with an error; now the worker has looked.

        If it happened, what there was before may come back until it is made durable.
        """
        volume = self.volumes[mark["volume"]]
        op = mark["op"]
        volume.version += 1
        self._begun.pop(mark["id"], None)
        if op == "create" and happened:
            volume.unsure.add("create")
        elif op == "resize" and happened:
            before = volume.sizes[:-1]
            self._end_resize(mark)
            volume.sizes = [*before, *volume.sizes]
            volume.unsure.add("resize")
        elif op == "resize":
            volume.sizes.pop()
            length = -(-volume.sizes[-1] // UNIT) * UNIT
            del volume.base[length:], volume.current[length:]
        elif op == "rename" and not happened:
            volume.names.remove(mark["name"])
        elif op == "remove" and not happened:
            volume.names.remove(None)
        elif op == "create":
            del self.volumes[mark["volume"]]

    def _begin_create(self, mark: Mark) -> None:
        """Empty, imported (with a pattern) or cloned or frozen from another."""
        size = mark["size"]
        content = bytearray(-(-size // UNIT) * UNIT)
        if "source" in mark:
            source = self.volumes[mark["source"]]
            both = min(len(content), len(source.current))
            content[:both] = source.current[:both]
        elif "pieces" in mark:
            for offset, length in mark["pieces"]:
                content[offset : offset + length] = payload(
                    self._seed, mark["id"] + offset, length
                )
        self.volumes[mark["volume"]] = Expected(
            [None, mark["name"]],
            [size],
            content,
            mark["read_only"],
            current=bytearray(content),
        )
        if mark.get("flushes"):
            self._begun[mark["id"]] = self._clock

    def _end_create(self, mark: Mark) -> None:
        volume = self.volumes[mark["volume"]]
        volume.names = volume.names[-1:]
        if mark.get("flushes"):
            self._promise(self.volumes[mark["source"]], self._begun.pop(mark["id"]))

    def _begin_rename(self, mark: Mark) -> None:
        self.volumes[mark["volume"]].names.append(mark["name"])

    def _end_rename(self, mark: Mark) -> None:
        del self.volumes[mark["volume"]].names[:-1]

    def _begin_remove(self, mark: Mark) -> None:
        self.volumes[mark["volume"]].names.append(None)

    def _end_remove(self, mark: Mark) -> None:
        del self.volumes[mark["volume"]]

    def _begin_resize(self, mark: Mark) -> None:
        volume = self.volumes[mark["volume"]]
        volume.sizes.append(mark["size"])
        volume.version += 1
        grown = -(-mark["size"] // UNIT) * UNIT - len(volume.base)
        volume.base.extend(bytes(max(0, grown)))
        volume.current.extend(bytes(max(0, grown)))

    def _end_resize(self, mark: Mark) -> None:
        volume = self.volumes[mark["volume"]]
        size = mark["size"]
        del volume.sizes[:-1]
        volume.version += 1
        length = -(-size // UNIT) * UNIT
        for data in (volume.base, volume.current):
            del data[length:]
            data[size:] = bytes(length - size)
        for written in volume.pending:
            for unit in [u for u in written.values if u * UNIT + UNIT > size]:
                kept = written.values[unit][: max(0, size - unit * UNIT)]
                if unit * UNIT >= size:
                    del written.values[unit]
                else:
                    written.values[unit] = kept.ljust(UNIT, b"\0")


def differs(volume: Expected, found: bytes, size: int) -> str:
    """Compare what a volume holds with what it may hold.

    Args:
        volume: the model's.
        found: all its bytes.
        size: its size, one of `volume.sizes` [bytes].

    Returns:
        What is wrong, or nothing.
    """
    if found == volume.base[:size]:
        return ""
    for unit in range(-(-size // UNIT)):
        low, high = unit * UNIT, min((unit + 1) * UNIT, size)
        got = found[low:high]
        if got == volume.base[low:high]:
            continue
        if not any(
            got == written.values[unit][: high - low]
            for written in volume.pending
            if unit in written.values
        ):
            return f"unit {unit} (byte {low}) holds {_show(got)}, not " + _show(
                bytes(volume.base[low:high])
            )
    return ""


def _show(data: bytes) -> str:
    return "zeros" if not any(data) else data[:8].hex() + "..."
