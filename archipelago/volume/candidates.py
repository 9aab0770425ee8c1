# SPDX-License-Identifier: Apache-2.0
"""Candidates: what a change makes unreferenced, stored before the change.

A change that takes a reference out of a header, or moves it to another header, records
the object first, durably.  Then nothing leaks when a process or a node dies at any
point: the next collector that finds the record looks at the object again.

Records are appended to a *batch*, an object of kind CANDIDATES named by the instance
and a number.  Format: ``docs/format/candidates.md``.  Any thread.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from archipelago.errors import NoSpace
from archipelago.ids import ObjectId
from archipelago.objects import Store
from xseg.constants import ObjectKind

log = logging.getLogger(__name__)

_MAGIC = b"ACPCAND1"
#: Magic, CRC-32 of what follows it, number of objects.
_HEAD = struct.Struct("<8sII")
#: Kind, flags, id.
_OBJECT = struct.Struct("<II32s")
#: Flag: only the header that named it may ever have referred to it.
_SOLE = 1
#: A batch of this length is followed by another one [bytes].
_BATCH_BYTES = 1 << 20


@dataclass(slots=True)
class Retired:
    """Objects that one change may leave unreferenced.

    Attributes:
        objects: by name: whether only the changed header can have referred to it.
        done: the change has ended, well or not.
    """

    objects: dict[ObjectId, bool]
    done: bool = False


@dataclass(slots=True)
class Batch:
    """One stored batch.

    Attributes:
        target: its object.
        length: bytes in it that are read or written.
        retired: what this process wrote to it.
    """

    target: ObjectId
    length: int = 0
    retired: list[Retired] = field(default_factory=list)


class Candidates:
    """The batches of one instance.

    Args:
        store: where they are kept.
        instance: uuid of the instance, 16 bytes.
    """

    def __init__(self, store: Store, instance: bytes) -> None:
        self._store = store
        self._instance = instance
        self._guard = threading.Lock()
        self._batch: Batch | None = None
        #: Full ones, and those that a collector has begun with.
        self._closed: list[Batch] = []

    def record(self, objects: dict[ObjectId, bool]) -> Retired:
        """Record objects before the change that may leave them unreferenced.

        On a full store they are remembered by this process only: removing is how space
        is made, and must not need any.

        Args:
            objects: by name: whether only the changed header can have referred to it.

        Returns:
            To be marked as done when the change has ended.

        Raises:
            ArchipelagoError: the store failed; the change must not be made.
        """
        retired = Retired(dict(objects))
        if objects:
            self.carry(retired)
        else:
            retired.done = True
        return retired

    def carry(self, retired: Retired) -> None:
        """Record what was recorded before, since its batch is to go."""
        raw = pack(retired.objects)
        with self._guard:
            batch = self._open()
            batch.retired.append(retired)
            try:
                self._store.write(batch.target, batch.length, raw, durable=True)
            except NoSpace:
                log.warning(
                    "the store is full: what is removed is remembered in memory"
                )
            except BaseException:
                batch.retired.remove(retired)
                # A torn record ends a batch for its readers.
                self._rotate()
                raise
            else:
                batch.length += len(raw)
                if batch.length >= _BATCH_BYTES:
                    self._rotate()

    @property
    def any(self) -> bool:
        """True if something is recorded here."""
        with self._guard:
            batches = [*self._closed, *([self._batch] if self._batch else [])]
            return any(batch.retired for batch in batches)

    def close(self) -> list[Batch]:
        """Begin a new batch; returns all earlier ones of this process."""
        with self._guard:
            self._rotate()
            return list(self._closed)

    def recorded(self) -> set[ObjectId]:
        """What was recorded here since `close`."""
        with self._guard:
            found = self._batch.retired if self._batch is not None else []
            return {target for retired in found for target in retired.objects}

    def forget(self, batches: Iterable[Batch]) -> None:
        """Remove batches whose objects have been seen to."""
        for batch in batches:
            self._store.delete(batch.target)
            with self._guard:
                if batch in self._closed:
                    self._closed.remove(batch)

    def foreign(self) -> list[Batch]:
        """The batches that this process did not write, with their lengths."""
        found = []
        with self._guard:
            own = {batch.target.id for batch in self._closed}
            if self._batch is not None:
                own.add(self._batch.target.id)
        for raw, size, _, _ in self._store.listing(ObjectKind.CANDIDATES):
            if raw not in own:
                found.append(Batch(ObjectId(ObjectKind.CANDIDATES, raw), size))
        return found

    def read(self, batch: Batch, start: int = 0) -> dict[ObjectId, bool]:
        """What a stored batch names, from an offset between two records on [bytes]."""
        data = self._store.read(batch.target, start, _BATCH_BYTES * 8)
        return unpack(data)

    def _open(self) -> Batch:
        if self._batch is None:
            number = time.time_ns().to_bytes(8, "little")
            target = ObjectId(ObjectKind.CANDIDATES, self._instance + number + bytes(8))
            self._batch = Batch(target)
        return self._batch

    def _rotate(self) -> None:
        if self._batch is not None:
            self._closed.append(self._batch)
            self._batch = None


def pack(objects: dict[ObjectId, bool]) -> bytes:
    """Code one record."""
    body = b"".join(
        _OBJECT.pack(target.kind, _SOLE if sole else 0, target.id)
        for target, sole in objects.items()
    )
    head = struct.pack("<I", len(objects))
    return _MAGIC + struct.pack("<I", zlib.crc32(head + body)) + head + body


def unpack(data: bytes) -> dict[ObjectId, bool]:
    """Read records up to the end, or to the first that is torn or of no known form."""
    found: dict[ObjectId, bool] = {}
    at = 0
    while at + _HEAD.size <= len(data):
        magic, crc, count = _HEAD.unpack_from(data, at)
        start, end = at + _HEAD.size, at + _HEAD.size + count * _OBJECT.size
        if (
            magic != _MAGIC
            or end > len(data)
            or crc != zlib.crc32(data[start - 4 : end])
        ):
            break
        for kind, flags, raw in _OBJECT.iter_unpack(data[start:end]):
            if kind in _KINDS:
                target = ObjectId(ObjectKind(kind), raw)
                found[target] = found.get(target, True) and bool(flags & _SOLE)
        at = end
    return found


_KINDS = frozenset(
    {
        ObjectKind.CONTENT,
        ObjectKind.EXTENT,
        ObjectKind.LAYER,
        ObjectKind.JOURNAL,
        ObjectKind.LEASE,
    }
)
