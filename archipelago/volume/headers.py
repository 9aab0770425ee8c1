# SPDX-License-Identifier: Apache-2.0
"""Headers by name: what exists.

A rename leaves two headers for a moment; exactly one of them is valid at any instant
(``docs/design/0001-core.md``): a header with ``moving_to`` is dead if and only if the
header of that name has the same uuid.  Readers resolve that here and change nothing;
`Headers.settle` removes the dead one, under the volume's lease.

Any thread.  Who changes a header holds its name's lock and its lease (`changing`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from archipelago._map import Header, MapFormatError, pack_header, unpack_header
from archipelago.errors import (
    ArchipelagoError,
    BlockNotFound,
    MapCorrupt,
    VolumeExists,
    VolumeNotFound,
)
from archipelago.ids import ObjectId, header_id
from archipelago.volume.store import Store
from xseg.constants import ObjectKind

log = logging.getLogger(__name__)

#: Longest header [bytes].
HEADER_MAX_BYTES = 65536
#: Headers that a scan reads at a time.
_SCAN = 256


class Headers:
    """The headers of one store.

    Args:
        store: where they are.

    Attributes:
        written: called with every header once it is stored, or may be (the
            collector's barrier, see `archipelago.volume.reclaim`).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.written: Callable[[Header], None] = lambda header: None

    def peek(self, name: str) -> Header | None:
        """Read the header stored under a name, dead or alive."""
        header = self._load(header_id(name))
        if header is not None and header.name != name:
            raise MapCorrupt(f'the header of "{name}" says it is "{header.name}"')
        return header

    def find(self, name: str) -> Header | None:
        """Read the valid header of a name, or None if there is no such volume."""
        while True:
            header = self.peek(name)
            if header is None or not header.moving_to:
                return header
            if self._moved(header):
                return None
            # The new name is not there, or not any more: only if the old header has
            # not changed meanwhile does that mean that the move never happened.
            again = self.peek(name)
            if again is not None and _same(again, header):
                return header

    def get(self, name: str) -> Header:
        """Read the valid header of a name.

        Raises:
            VolumeNotFound: there is none.
        """
        header = self.find(name)
        if header is None:
            raise VolumeNotFound(
                f'there is no volume or snapshot "{name}": "vlmc list" shows what '
                "there is"
            )
        return header

    def refuse_existing(self, name: str) -> None:
        """Raise `VolumeExists` if the name is taken."""
        if self.find(name) is not None:
            raise taken(name)

    def create(self, header: Header) -> None:
        """Store a new header.

        Raises:
        VolumeExists: the name is taken.
        """
        target = header_id(header.name)
        try:
            fresh = self._store.create(target, pack_header(header))
        finally:
            self.written(header)
        if not fresh:
            raise taken(header.name)

    def create_all(self, headers: Sequence[Header]) -> list[bool | ArchipelagoError]:
        """Store many new headers, durable after a flush of the store.

        Returns:
            For each: false if its name is taken, or why it could not be stored.
        """
        objects = [(header_id(h.name), pack_header(h)) for h in headers]
        try:
            return self._store.create_all(objects)
        finally:
            for header in headers:
                self.written(header)

    def replace(self, header: Header) -> None:
        """Store the successor of a header; its version is the stored one plus one.

        Raises:
            LeaseLost: the stored version or fence is another.
        """
        target = header_id(header.name)
        try:
            self._store.replace(target, pack_header(header), header.version - 1)
        finally:
            self.written(header)

    def delete(self, name: str) -> None:
        """Remove the header of a name."""
        self._store.delete(header_id(name))

    def settle(self, header: Header) -> None:
        """Finish the rename that made `header`, if it was not finished.

        Until then a change of the new header could revive the old one.
        """
        if not header.moved_from:
            return
        old = self.peek(header.moved_from)
        if old is not None and old.uuid == header.uuid and old.moving_to == header.name:
            self.delete(old.name)

    def scan(self, *, strict: bool = False) -> Iterator[Header]:
        """Yield all stored headers, dead ones too, in no order.

        Args:
            strict: raise for a damaged header instead of leaving it out.
        """
        seen: set[bytes] = set()
        targets: list[ObjectId] = []
        for entry in self._store.list(ObjectKind.HEADER):
            if entry.object.id not in seen:
                seen.add(entry.object.id)
                targets.append(ObjectId(ObjectKind.HEADER, entry.object.id))
        for start in range(0, len(targets), _SCAN):
            page = targets[start : start + _SCAN]
            raws = self._store.read_all(page, HEADER_MAX_BYTES)
            for target, raw in zip(page, raws, strict=True):
                try:
                    header = self._load(target) if raw == b"" else _decode(target, raw)
                except ArchipelagoError as error:
                    if strict:
                        raise
                    log.error("left out of the listing: %s", error)
                    continue
                if header is not None:
                    yield header

    def live(self, header: Header) -> bool:
        """True if a header that `scan` gave is the valid one of its name."""
        if not header.moving_to:
            return True
        found = self.find(header.name)
        return found is not None and found.uuid == header.uuid

    def _moved(self, header: Header) -> bool:
        other = self.peek(header.moving_to)
        return other is not None and other.uuid == header.uuid

    def _load(self, target: ObjectId) -> Header | None:
        try:
            data = self._store.read(target, 0, HEADER_MAX_BYTES)
        except BlockNotFound:
            return None
        return _decode(target, data)


def _decode(target: ObjectId, data: bytes | None) -> Header | None:
    if data is None:
        return None
    try:
        return unpack_header(data)
    except MapFormatError as error:
        raise MapCorrupt(f"{target} is damaged: {error}") from error


def taken(name: str) -> VolumeExists:
    """Make the error for a name that is in use."""
    return VolumeExists(
        f'"{name}" exists already: choose another name, or remove it first'
    )


def _same(a: Header, b: Header) -> bool:
    return a.uuid == b.uuid and a.version == b.version
