# SPDX-License-Identifier: Apache-2.0
"""Headers by name: what exists.

A rename leaves two headers for a moment; exactly one of them is valid at any instant
(``docs/design/0001-core.md``):

* one with ``moving_to`` is dead: the other was there before it got that;
* one with ``moved_from`` is valid if and only if the header of that name has the same
  uuid and moves to it.

Readers resolve that here and change nothing; `Headers.settle` ends it, under the
volume's lease.

No two headers of a name ever have the same version: it starts with the time.  So who
names the version that it saw cannot replace or remove what came after it.

Any thread.  Who changes a header holds its name's lock and its lease (`changing`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from archipelago._format import MapFormatError
from archipelago._header import Header, pack_header, unpack_header
from archipelago.errors import (
    ArchipelagoError,
    BlockNotFound,
    MapCorrupt,
    VolumeExists,
    VolumeNotFound,
)
from archipelago.ids import ObjectId, header_id
from archipelago.objects import Store

log = logging.getLogger(__name__)

#: Longest header [bytes].
HEADER_MAX_BYTES = 65536
#: Headers that are read at a time.
_BATCH = 256


class Headers:
    """The headers of one store.

    Args:
        store: where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def peek(self, name: str, *, durable: bool = False) -> Header | None:
        """Read the header stored under a name, dead or alive.

        Args:
            name: the name.
            durable: whoever made, replaced or removed it may have died before that was
                durable: it is durable once this returns.  For who acts on it.
        """
        try:
            header = self._load(header_id(name), durable=durable)
        except MapCorrupt as error:
            raise MapCorrupt(
                f'the header of "{name}" is damaged ({error}): "vlmc remove {name}" '
                "removes it"
            ) from error
        if header is not None and header.name != name:
            raise MapCorrupt(f'the header of "{name}" says it is "{header.name}"')
        return header

    def is_damaged(self, name: str) -> bool:
        """True if there is a header of that name, and it cannot be read."""
        try:
            self.peek(name)
        except MapCorrupt:
            return True
        return False

    def find(self, name: str, *, durable: bool = False) -> Header | None:
        """Read the valid header of a name, or None if there is no such volume.

        Args:
            name: the name.
            durable: as `peek`; also what makes it valid.
        """
        while True:
            header = self.peek(name, durable=durable)
            if header is None or header.moving_to:
                return None
            if not header.moved_from or self._came(header, durable=durable):
                return header
            # The old name is not there, or not any more: only if this header has not
            # changed meanwhile does that mean that the move did not happen.
            again = self.peek(name)
            if again is not None and _same(again, header):
                return None

    def get(self, name: str, *, durable: bool = False) -> Header:
        """Read the valid header of a name.

        Args:
            name: the name.
            durable: as `find`.

        Raises:
            VolumeNotFound: there is none.
        """
        header = self.find(name, durable=durable)
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
        fresh = self._store.create(target, pack_header(header))
        if not fresh:
            raise taken(header.name)

    def create_all(self, headers: Sequence[Header]) -> list[bool | ArchipelagoError]:
        """Store many new headers, durable after a flush of the store.

        Returns:
            For each: false if its name is taken, or why it could not be stored.
        """
        objects = [(header_id(h.name), pack_header(h)) for h in headers]
        return self._store.create_all(objects)

    def replace(self, header: Header) -> None:
        """Store the successor of a header; its version is the stored one plus one.

        Raises:
            LeaseLost: the stored version or fence is another.
        """
        target = header_id(header.name)
        self._store.replace(target, pack_header(header), header.version - 1)

    def delete(self, name: str, version: int) -> bool:
        """Remove the header of a name; false if it was not there.

        Raises:
            LeaseLost: it has another version.
        """
        return self._store.delete(header_id(name), version)

    def make_durable(self) -> None:
        """Let no power cut take back what was found of any header until now.

        Whoever changed or removed it may have died before he did so.
        """
        self._store.flush_headers()

    def settle(self, header: Header) -> Header:
        """Finish the rename that made a valid header, if it was not finished.

        The caller holds the volume's lease.  The fence stays as it is: whether the
        volume must be taken over is another question.

        Args:
            header: as stored, and durable: else a power cut could bring the old name
                back beside the new one.

        Returns:
            The header as it is then.
        """
        if not header.moved_from:
            return header
        # First this: without the old header it would be dead.
        settled = replace(header, version=header.version + 1, moved_from="")
        self.replace(settled)
        self.bury_source(header)
        return settled

    def bury_source(self, header: Header) -> None:
        """Remove the dead header that the rename of a valid one left behind, if any.

        The valid one does not need it any more: it is settled, or removed.
        """
        old = self.peek(header.moved_from) if header.moved_from else None
        if old is None or old.uuid != header.uuid or old.moving_to != header.name:
            return
        try:
            self.delete(old.name, old.version)
        except ArchipelagoError as error:
            # It is dead for ever; who wants its name removes it.
            log.warning('the header of "%s" stays for now: %s', old.name, error)

    def read_all(
        self, targets: Sequence[ObjectId]
    ) -> Iterator[Header | tuple[bytes, ArchipelagoError] | None]:
        """Read many headers.

        Yields:
            For each: the header; None if it is not there; or what could be read, and
            why that is none.
        """
        for start in range(0, len(targets), _BATCH):
            batch = targets[start : start + _BATCH]
            raws = self._store.read_all(batch, HEADER_MAX_BYTES)
            for target, raw in zip(batch, raws, strict=True):
                try:
                    # Nothing: reading it alone says why.
                    yield self._load(target) if raw == b"" else _decode(target, raw)
                except ArchipelagoError as error:
                    yield raw or b"", error

    def _came(self, header: Header, *, durable: bool = False) -> bool:
        old = self.peek(header.moved_from, durable=durable)
        return (
            old is not None and old.uuid == header.uuid and old.moving_to == header.name
        )

    def _load(self, target: ObjectId, *, durable: bool = False) -> Header | None:
        try:
            data = self._store.read(target, 0, HEADER_MAX_BYTES, durable=durable)
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


def first_version() -> int:
    """The version of a header that comes into being: no earlier one of its name had it.

    A header does not change once per nanosecond, so its versions never catch up.
    """
    return time.time_ns()


def taken(name: str) -> VolumeExists:
    """Make the error for a name that is in use."""
    return VolumeExists(
        f'"{name}" exists already: choose another name, or remove it first'
    )


def _same(a: Header, b: Header) -> bool:
    return a.uuid == b.uuid and a.version == b.version
