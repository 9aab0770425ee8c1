# SPDX-License-Identifier: Apache-2.0
"""The headers by name, kept in memory and refreshed by reading only what changed.

The store says what changed (``CHANGES``, ``LIST``; ``docs/format/store.md``): a stamp
for all headers whose id begins with the same byte, and a version for each header.  A
shard whose stamp is as before is not looked at; a header whose version is as before is
not read.  So a refresh costs what changed, by whichever node.

A stamp may be wrong where the clocks of nodes are apart.  So listings go by it, and the
collector does not: `refresh(full=True)` looks at all versions, which are always right.

Any thread; one refreshes at a time.
"""

from __future__ import annotations

import bisect
import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from archipelago._header import Header, StackEntry
from archipelago.errors import ArchipelagoError
from archipelago.ids import ObjectId
from archipelago.objects import Store
from archipelago.volume.headers import Headers
from xseg.constants import NAME_MAX, NR_STAMPS, ObjectKind

log = logging.getLogger(__name__)

#: Headers that are read at a time.
_BATCH = 256
#: So many changes are sorted in one by one, more by sorting all names.
_FEW = 64
#: A page of a listing may be as old as that [s].
_FRESH = 1.0
#: A damaged header is searched for its name if it is not longer [bytes].
_SALVAGE_MAX = 1024


@dataclass(frozen=True, slots=True)
class Damaged:
    """A header that cannot be read.

    Attributes:
        name: of the volume, or text that names the object if the header does not tell.
        why: what is wrong with it.
    """

    name: str
    why: str


@dataclass(slots=True)
class _Shard:
    """The headers whose ids begin with one byte."""

    stamp: int = 0
    #: By id: the version as listed, and what was read.
    entries: dict[bytes, tuple[int, Header | Damaged]] = field(default_factory=dict)


Stack = tuple[StackEntry, ...]
#: What names a table of a stack: type, id and number of its entry.
Table = tuple[int, bytes, int]


def table_of(entry: StackEntry) -> Table:
    """What names the table of a stack's entry."""
    return entry.type, entry.id, entry.number


class HeaderIndex:
    """What headers there are.

    Args:
        store: where they are.
        headers: reads and judges them.
    """

    def __init__(self, store: Store, headers: Headers) -> None:
        self._store = store
        self._headers = headers
        self._guard = threading.Lock()
        self._shards = [_Shard() for _ in range(NR_STAMPS)]
        self._names: list[str] = []
        self._by_name: dict[str, Header | Damaged] = {}
        self._logical = 0
        #: Each different stack once, with the names that have it.
        self._stacks: dict[Stack, tuple[Stack, set[str]]] = {}
        #: The stacks that have a table, by their identity.
        self._tables: dict[Table, dict[int, Stack]] = {}
        self._uuids: dict[bytes, set[str]] = {}
        #: Stacks that the refresh under way has met.
        self._seen: dict[Stack, Stack] = {}
        self._refreshed = -_FRESH

    def refresh(self, *, full: bool = False, lately: bool = False) -> None:
        """Learn what changed.

        Args:
            full: look at the versions of all headers, whatever the stamps say.
            lately: not if that was done a moment ago.

        Raises:
            ArchipelagoError: the store does not answer; nothing is forgotten.
        """
        with self._guard:
            if lately and time.monotonic() - self._refreshed < _FRESH:
                return
            # First: what changes from now on has another stamp the next time.
            stamps = self._store.changes()
            shards = [
                i
                for i, stamp in enumerate(stamps)
                if full or stamp == 0 or stamp != self._shards[i].stamp
            ]
            for first, end in _ranges(shards):
                self._refresh_range(first, end)
            for i in shards:
                # A damaged header may be mended where it lies, which changes no stamp.
                self._shards[i].stamp = 0 if self._has_damaged(i) else stamps[i]
            self._seen.clear()
            self._refreshed = time.monotonic()

    def page(
        self, prefix: str, marker: str, limit: int
    ) -> tuple[list[Header | Damaged], bool]:
        """The names that exist and begin with `prefix`, behind `marker`, sorted.

        Returns:
            At most `limit` of them, and whether there are more.
        """
        with self._guard:
            names = self._names
            first = bisect.bisect_left(names, prefix)
            if marker >= prefix:
                first = bisect.bisect_right(names, marker)
            found: list[Header | Damaged] = []
            while first < len(names) and names[first].startswith(prefix):
                start, first = first, min(first + limit + 1, len(names))
                for name in names[start:first]:
                    if not name.startswith(prefix):
                        return found, False
                    header = self._by_name[name]
                    if not isinstance(header, Header) or self._is_live(header):
                        if len(found) == limit:
                            return found, True
                        found.append(header)
            return found, False

    @property
    def logical_bytes(self) -> int:
        """Sum of the sizes of all volumes and snapshots [bytes]."""
        return self._logical

    def user_of(self, table: Table) -> str | None:
        """A name whose header had this table in its stack when it was read last."""
        with self._guard:
            for stack in self._tables.get(table, {}).values():
                for name in self._stacks[stack][1]:
                    return name
            return None

    def name_of(self, uuid: bytes) -> str | None:
        """A name under which the header of a uuid was read last."""
        with self._guard:
            return next(iter(self._uuids.get(uuid, ())), None)

    def all(self) -> list[Header | Damaged]:
        """All headers, those that an interrupted rename left dead too."""
        with self._guard:
            return list(self._by_name.values())

    def live(self) -> list[Header]:
        """All valid headers that can be read."""
        with self._guard:
            return [
                header
                for header in self._by_name.values()
                if isinstance(header, Header) and self._is_live(header)
            ]

    def name_now(self, name: str, uuid: bytes) -> str:
        """The name of what was called `name`, after a rename.

        Returns:
            `name` itself if nothing has that uuid.
        """
        found = self._headers.find(name)
        if found is not None and found.uuid == uuid:
            return name
        self.refresh()
        with self._guard:
            for other in self._uuids.get(uuid, ()):
                header = self._by_name[other]
                if isinstance(header, Header) and self._is_live(header):
                    return other
        return name

    # ---- the guard is held ---------------------------------------------------------

    def _is_live(self, header: Header) -> bool:
        if not header.moving_to and not header.moved_from:
            return True
        try:
            found = self._headers.find(header.name)
        except ArchipelagoError as error:
            log.error('"%s" is left out of the listing: %s', header.name, error)
            return False
        return found is not None and found.uuid == header.uuid

    def _has_damaged(self, shard: int) -> bool:
        entries = self._shards[shard].entries.values()
        return any(isinstance(header, Damaged) for _, header in entries)

    def _refresh_range(self, first: int, end: int) -> None:
        known: dict[bytes, tuple[int, Header | Damaged]] = {}
        for shard in self._shards[first:end]:
            known.update(shard.entries)
        now: dict[bytes, tuple[int, Header | Damaged]] = {}
        changed: list[tuple[bytes, int]] = []
        for raw, _, _, version in self._store.listing(
            ObjectKind.HEADER, first, end, expected=len(known)
        ):
            before = known.get(raw)
            if before is not None and version and before[0] == version:
                now[raw] = before
            else:
                changed.append((raw, version))
        for at in range(0, len(changed), _BATCH):
            batch = changed[at : at + _BATCH]
            for (raw, version), header in zip(
                batch, self._read([raw for raw, _ in batch]), strict=True
            ):
                if header is not None:
                    # A version that the header does not have says nothing.
                    sure = isinstance(header, Header) and header.version == version
                    now[raw] = (version if sure else 0), header
        self._replace(known, now)
        for shard in self._shards[first:end]:
            shard.entries.clear()
        for raw, entry in now.items():
            self._shards[raw[0]].entries[raw] = entry

    def _read(self, ids: list[bytes]) -> Iterator[Header | Damaged | None]:
        targets = [ObjectId(ObjectKind.HEADER, raw) for raw in ids]
        for target, found in zip(targets, self._headers.read_all(targets), strict=True):
            if isinstance(found, Header):
                yield self._shared(found)
            elif found is None:
                yield None
            else:
                data, error = found
                yield Damaged(salvage_name(target.id, data), str(error))

    def _shared(self, header: Header) -> Header:
        """The same header with the stack that others of the same stack have."""
        known = self._stacks.get(header.stack)
        stack = self._seen.setdefault(header.stack, known[0] if known else header.stack)
        return header if stack is header.stack else replace(header, stack=stack)

    def _enter(self, header: Header | Damaged) -> None:
        self._by_name[header.name] = header
        self._logical += _logical(header)
        if not isinstance(header, Header):
            return
        stack, names = self._stacks.setdefault(header.stack, (header.stack, set()))
        if not names:
            for entry in stack:
                self._tables.setdefault(table_of(entry), {})[id(stack)] = stack
        names.add(header.name)
        self._uuids.setdefault(header.uuid, set()).add(header.name)

    def _leave(self, header: Header | Damaged) -> None:
        self._by_name.pop(header.name, None)
        self._logical -= _logical(header)
        if not isinstance(header, Header):
            return
        known = self._uuids[header.uuid]
        known.discard(header.name)
        if not known:
            del self._uuids[header.uuid]
        stack, names = self._stacks[header.stack]
        names.discard(header.name)
        if names:
            return
        del self._stacks[stack]
        for entry in stack:
            table = table_of(entry)
            users = self._tables.get(table, {})
            users.pop(id(stack), None)
            if not users:
                self._tables.pop(table, None)

    def _replace(
        self,
        before: dict[bytes, tuple[int, Header | Damaged]],
        after: dict[bytes, tuple[int, Header | Damaged]],
    ) -> None:
        """Let names and sizes follow."""
        gone, come = [], []
        for raw, (_, header) in before.items():
            if after.get(raw, (0, None))[1] is not header:
                self._leave(header)
                gone.append(header.name)
        for raw, (_, header) in after.items():
            if before.get(raw, (0, None))[1] is not header:
                self._enter(header)
                come.append(header.name)
        if len(gone) + len(come) > _FEW:
            self._names = sorted(self._by_name)
            return
        for name in gone:
            del self._names[bisect.bisect_left(self._names, name)]
        for name in come:
            bisect.insort(self._names, name)


def salvage_name(raw: bytes, data: bytes) -> str:
    """Find the name in a damaged header: its hash is the object's id.

    Args:
        raw: the id.
        data: what can be read of the header.

    Returns:
        The name, or a text that says which object it is.
    """
    if len(data) <= _SALVAGE_MAX:
        for start in range(len(data)):
            running = hashlib.sha256()
            for end in range(start, min(start + NAME_MAX, len(data))):
                running.update(data[end : end + 1])
                if running.digest() == raw:
                    return data[start : end + 1].decode(errors="replace")
    return f"(header {raw.hex()[:16]})"


def _logical(header: Header | Damaged) -> int:
    """What a header adds to the sum; of a rename under way only the old name counts."""
    if isinstance(header, Damaged) or header.moved_from:
        return 0
    return header.size


def _ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Join numbers that follow one another: first, and one past the last."""
    first = end = -1
    for number in numbers:
        if number != end:
            if first >= 0:
                yield first, end
            first = number
        end = number + 1
    if first >= 0:
        yield first, end
