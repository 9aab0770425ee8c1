# SPDX-License-Identifier: Apache-2.0
"""The native half of mapperd: maps of open volumes.

Any thread.  A handle is the mapper's name for one map in memory.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from archipelago._header import unpack_header
from archipelago.errors import (
    ArchipelagoError,
    BackendUnavailable,
    MapCorrupt,
    from_errno,
)
from archipelago.ids import ObjectId, lease_id
from archipelago.messenger import Messenger, Reply
from archipelago.words import verb
from xseg.constants import PORT_MAPPERD, Flag, Op
from xseg.payload import (
    JournalInfo,
    MapInfo,
    ObjectName,
    Run,
    unpack_object_names,
    unpack_runs,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: A generation that covers all marks.
_ALL_GENERATIONS = (1 << 64) - 1
#: Room for the runs of one answer [bytes].
_RUNS_ROOM = 64 << 10
#: Range of one MAPR [bytes]: bounds how long one answer keeps the mapper busy.
_RUNS_RANGE = 4 << 30
#: Volumes that `Maps.left` lists at a time.
_LEFT_MOST = 1024


class Maps:
    """Requests to the native mapper.

    Args:
        messenger: sends the requests.
    """

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger
        self._names: dict[int, str] = {}
        self._damaged: dict[bytes, str] = {}

    def open(self, header: bytes, *, read_only: bool) -> int:
        """Load a map; returns its handle.

        Raises:
            MapCorrupt: header, journals or layers are damaged.
        """
        flags = Flag.RDONLY if read_only else Flag(0)
        known = unpack_header(header)
        try:
            reply = self._call(Op.OPEN, data=header, flags=flags, name=known.name)
        except MapCorrupt as error:
            self.note_damage(known.uuid, str(error))
            raise
        self._damaged.pop(known.uuid, None)
        self._names[reply.handle] = known.name
        return reply.handle

    def note_damage(self, uuid: bytes, why: str) -> None:
        """Remember that the map of a volume (uuid) was found damaged, and how."""
        self._damaged[uuid] = why

    def damage(self, uuid: bytes) -> str | None:
        """Why the map of a volume (uuid) could not be read lately; None if it could."""
        return self._damaged.get(uuid)

    def close(self, handle: int, *, drop: bool = False) -> None:
        """Forget a map, if it is still there.

        Args:
            handle: the map's.
            drop: also its marks that were not flushed.  Otherwise they wait for who
                opens the volume in the same epoch under the same fence.
        """
        flags = Flag.FORCE if drop else Flag(0)
        self._call(Op.CLOSE, handle, flags=flags, ok=errno.ESTALE)
        self._names.pop(handle, None)

    def hold(self, handle: int) -> JournalInfo:
        """Hold appends back until `follow`; say where the journal stands."""
        reply = self._call(Op.UPDATE, handle, flags=Flag.MORE)
        return JournalInfo.unpack(reply.inline)

    def follow(self, handle: int, header: bytes) -> None:
        """Let the map follow a changed header; appends go on."""
        self._names[handle] = unpack_header(header).name
        self._call(Op.UPDATE, handle, data=header)

    def info(self, handle: int) -> MapInfo:
        """Describe the map in memory."""
        return MapInfo.unpack(self._call(Op.INFO, handle).inline)

    def mark(self, handle: int, offset: int, size: int) -> None:
        """Mark whole sectors as present in the current extent, durably."""
        self._call(Op.MAPW, handle, offset=offset, size=size, args=(0,))
        self._call(Op.FLUSH, handle, args=(0,))

    def flush(self, handle: int) -> None:
        """Make all marks durable.  The data they speak of is durable already."""
        self._call(Op.FLUSH, handle, args=(_ALL_GENERATIONS,))

    def left(self) -> list[bytes]:
        """List volumes (uuid) with marks that wait, and no open map."""
        size = ObjectName.LAYOUT.size
        reply = self._call(Op.LIST, room=_LEFT_MOST * size, record=size)
        return [n.id[:16] for n in unpack_object_names(reply.data, reply.result)]

    def give_up_left(self, uuid: bytes) -> None:
        """Forget the marks of a volume that wait."""
        self._call(Op.DELETE, target=lease_id(uuid))

    def runs(self, handle: int, offset: int, size: int) -> Iterator[Run]:
        """Yield where the sectors of a range [bytes] come from, in order."""
        end = offset + size
        while offset < end:
            reply = self._call(
                Op.MAPR,
                handle,
                offset=offset,
                size=min(end - offset, _RUNS_RANGE),
                room=_RUNS_ROOM,
            )
            found = unpack_runs(reply.data, reply.result)
            if not found or found[0].offset != offset:
                raise MapCorrupt(f"the mapper answered no run at offset {offset}")
            yield from found
            offset = found[-1].offset + found[-1].size

    def _call(
        self,
        op: Op,
        handle: int = 0,
        *,
        offset: int = 0,
        size: int | None = None,
        data: ReadableBuffer = b"",
        room: int = 0,
        flags: int = 0,
        args: tuple[int, ...] = (),
        target: ObjectId | None = None,
        record: int = Run.LAYOUT.size,
        ok: int = 0,
        name: str = "",
    ) -> Reply:
        reply = self._messenger.call(
            PORT_MAPPERD,
            op,
            handle=handle,
            offset=offset,
            size=size,
            data=data,
            room=room,
            flags=flags,
            args=args,
            target=target,
            take=lambda rq, result: result * record,
        )
        if reply.result < 0 and -reply.result != ok:
            raise _failure(op, name or self._names.get(handle, ""), reply.result)
        return reply


def _failure(op: Op, name: str, result: int) -> ArchipelagoError:
    of = f'of "{name}"' if name else "of a volume"
    if result in (-errno.EBADMSG, -errno.ENOENT):
        return MapCorrupt(
            f"the map {of} is damaged: one of its journals or layers is missing, cut "
            "short, another's or fails its checksum; the log of mapperd names it, "
            "docs/damage.md has the cure"
        )
    if result == -errno.EPROTONOSUPPORT:
        return MapCorrupt(
            f"the map {of} was written by a newer version: upgrade this one"
        )
    what = f"cannot {verb(op)} the map {of}"
    if result == -errno.EOWNERDEAD:
        return BackendUnavailable(f"{what}: mapperd died; try again")
    return from_errno(result, what)
