# SPDX-License-Identifier: Apache-2.0
"""Stored objects: typed requests to the two blockers.

Any thread.  Data and content go to blockerb, everything else to blockerm.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from archipelago.errors import (
    ArchipelagoError,
    BackendUnavailable,
    BlockNotFound,
    LeaseLost,
    from_errno,
)
from archipelago.ids import ObjectId, presence_id
from archipelago.messenger import Call, Messenger, Reply
from xseg import Request
from xseg.constants import (
    BUFFER_MAX_BYTES,
    NR_STAMPS,
    PORT_BLOCKERB,
    PORT_BLOCKERM,
    Flag,
    ObjectKind,
    Op,
)
from xseg.payload import Lease, ListEntry, ObjectInfo, Presence, unpack_list_entries

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Bytes of one page of a listing [bytes].
_LIST_ROOM = 256 << 10
#: struct xseg_opaque: bytes that only the backend understands, and their number.
_OPAQUE = struct.Struct("<I4x64s")
#: Entries for which a page has room besides those that are expected.
_LIST_MORE = 64
#: Of a list entry: the id, its size, what it takes on disk, its version.
_ENTRY = struct.Struct("<8x32sQQ8xQ")
#: Ops that may be sent again when the blocker died with them.
_REPEATABLE = frozenset(
    {
        Op.READ,
        Op.INFO,
        Op.LIST,
        Op.FLUSH,
        Op.DISCARD,
        Op.ZERO,
        Op.WRITE,
        Op.ACQUIRE,
        Op.RELEASE,
        Op.DELETE,
    }
)

NOTHING = ObjectId(ObjectKind.NONE, bytes(32))


def port_of(kind: ObjectKind) -> int:
    """The blocker that stores objects of this kind."""
    data = kind in (ObjectKind.CONTENT, ObjectKind.EXTENT)
    return PORT_BLOCKERB if data else PORT_BLOCKERM


class Store:
    """The objects of one store.

    Args:
        messenger: sends the requests.

    Attributes:
        stepped: called after every completed change with its op and object.  Crash
        tests
            raise from it to stop an operation after that step.
    """

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger
        self.stepped: Callable[[Op, ObjectId], None] | None = None

    def read(
        self, target: ObjectId, offset: int, size: int, *, durable: bool = False
    ) -> bytes:
        """Read up to `size` bytes [bytes] at `offset`.

        Args:
            target: the object.
            offset: where to begin [bytes].
            size: how much [bytes].
            durable: what a header is, or that it is not there, is durable once this
                returns or raises, whoever did it.

        Raises:
            BlockNotFound: there is no such object.
        """
        pieces = []
        while size > 0:
            length = min(size, BUFFER_MAX_BYTES)
            reply = self._call(
                Op.READ,
                target,
                offset=offset,
                room=length,
                flags=Flag.FUA if durable else 0,
                take=_result,
            )
            pieces.append(reply.data)
            if reply.result < length:
                break
            offset += length
            size -= length
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(
        self, target: ObjectId, offset: int, data: ReadableBuffer, *, durable: bool
    ) -> None:
        """Write to an extent or layer, creating it if it is not there."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), BUFFER_MAX_BYTES):
            piece = view[start : start + BUFFER_MAX_BYTES]
            flags = Flag.FUA if durable else Flag(0)
            self._call(Op.WRITE, target, offset=offset + start, data=piece, flags=flags)
        self._step(Op.WRITE, target)

    def create(
        self, target: ObjectId, data: ReadableBuffer, *, deferred: bool = False
    ) -> bool:
        """Put an object unless it is there.

        Args:
            target: its name.
            data: all its bytes.
            deferred: durable only after `flush` of the whole store.

        Returns:
            False if it was there.
        """
        flags = Flag.NOSYNC if deferred else Flag(0)
        reply = self._call(Op.CREATE, target, data=data, flags=flags, ok=errno.EEXIST)
        if reply.result < 0:
            return False
        self._step(Op.CREATE, target)
        return True

    def create_all(
        self, objects: Sequence[tuple[ObjectId, bytes]]
    ) -> list[bool | ArchipelagoError]:
        """Put many objects unless they are there; durable after `flush_all`.

        Returns:
            For each: false if it was there, or why it could not be put.
        """
        calls = [
            Call(
                port_of(target.kind),
                Op.CREATE,
                target=target,
                data=data,
                flags=Flag.NOSYNC,
            )
            for target, data in objects
        ]
        fresh: list[bool | ArchipelagoError] = []
        for (target, _), reply in zip(
            objects, self._messenger.send_many(calls), strict=True
        ):
            if reply.result < 0 and reply.result != -errno.EEXIST:
                fresh.append(_failure(Op.CREATE, target, reply.result))
            else:
                fresh.append(reply.result >= 0)
        for target, _ in objects:
            self._step(Op.CREATE, target)
        return fresh

    def replace(self, target: ObjectId, data: ReadableBuffer, version: int) -> None:
        """Replace a header whose version is `version`.

        Raises:
            LeaseLost: version or fence is older than what is stored.
        """
        self._call(Op.UPDATE, target, data=data, args=(version,))
        self._step(Op.UPDATE, target)

    def append(
        self, target: ObjectId, offset: int, data: ReadableBuffer, fence: int
    ) -> None:
        """Append to a journal, durably.

        Args:
            target: the journal.
            offset: its length now [bytes].
            data: what to append.
            fence: of the lease that is held.

        Raises:
            LeaseLost: the volume's fence is newer.
            IoError: with ERANGE if the journal has another length.
        """
        self._call(Op.APPEND, target, offset=offset, data=data, args=(fence,))
        self._step(Op.APPEND, target)

    def flush(self, target: ObjectId) -> None:
        """Make one extent or layer durable."""
        self._call(Op.FLUSH, target)

    def flush_unless_lost(self, target: ObjectId) -> bool:
        """Make one extent or layer durable, if what was answered is still there.

        Returns:
            False if the blocker says that answered writes are lost for good.

        Raises:
            ArchipelagoError: they are not durable yet, and may become so later.
        """
        reply = self._call(Op.FLUSH, target, ok=tuple(errno.errorcode))
        if reply.result < 0 and reply.args[0] != 1:
            raise _failure(Op.FLUSH, target, reply.result)
        return reply.result >= 0

    def flush_headers(self) -> None:
        """Make durable what all headers are now, whoever changed or removed them."""
        self._call(Op.FLUSH, ObjectId(ObjectKind.HEADER, bytes(32)))

    def flush_all(self, kind: ObjectKind) -> None:
        """Make everything durable in the blocker that stores this kind."""
        self._call(Op.FLUSH, NOTHING, port=port_of(kind))

    def discard(self, extent: ObjectId, offset: int, size: int) -> None:
        """Give back a range of an extent that nobody writes to any more [bytes]."""
        if size > 0:
            self._call(Op.DISCARD, extent, offset=offset, size=size, flags=Flag.FORCE)

    def release_extent(self, extent: ObjectId) -> None:
        """Give up the right to write to an extent, and its open files."""
        self._call(Op.RELEASE, extent)
        self._step(Op.RELEASE, extent)

    def seal(self, extent: ObjectId, token: bytes = b"") -> None:
        """End the right of any holder to write to an extent, durably.

        Args:
            extent: which.
            token: how the backend shuts out the old holder, from its lease; up to 64
                bytes, empty if it has none.
        """
        inline = _OPAQUE.pack(len(token), token)
        self._call(Op.RELEASE, extent, flags=Flag.FORCE, inline=inline)
        self._step(Op.RELEASE, extent)

    def delete(self, target: ObjectId, version: int = 0) -> bool:
        """Remove an object durably.

        Args:
            target: its name.
            version: of a header, the one that is to go; 0 for any.

        Returns:
            False if it was not there.

        Raises:
            LeaseLost: another version is there.
        """
        reply = self._call(Op.DELETE, target, args=(version,), ok=errno.ENOENT)
        if reply.result < 0:
            return False
        self._step(Op.DELETE, target)
        return True

    def delete_all(self, targets: Sequence[ObjectId], *, generation: int = 0) -> int:
        """Remove many objects durably.

        Args:
            targets: their names.
            generation: content that a change of a newer one needs stays; 0: none
                stays.  All else is found through headers only, and has none.

        Returns:
            How many were there.
        """
        calls = [
            Call(
                port_of(t.kind),
                Op.DELETE,
                target=t,
                args=(generation if t.kind is ObjectKind.CONTENT else 0,),
            )
            for t in targets
        ]
        deleted = 0
        for target, reply in zip(
            targets, self._messenger.send_many(calls), strict=True
        ):
            raised = generation and reply.result == -errno.ESTALE
            if reply.result < 0 and reply.result != -errno.ENOENT and not raised:
                raise _failure(Op.DELETE, target, reply.result)
            if reply.result >= 0:
                deleted += 1
                self._step(Op.DELETE, target)
        return deleted

    def read_all(self, targets: Sequence[ObjectId], size: int) -> list[bytes | None]:
        """Read the first `size` bytes of many objects; None for one that is not there.

        One that cannot be read is an empty piece: reading it alone says why.
        """
        calls = [
            Call(port_of(t.kind), Op.READ, target=t, room=size, take=_result)
            for t in targets
        ]
        return [
            None if reply.result == -errno.ENOENT else reply.data
            for reply in self._messenger.send_many(calls)
        ]

    def changes(self) -> tuple[int, ...]:
        """Stamps of all headers, by the first byte of their ids; 0: not known.

        While a stamp stays as it is, no header of that first byte was made, replaced
        or removed.
        """
        size = NR_STAMPS * 8
        reply = self._call(
            Op.CHANGES,
            ObjectId(ObjectKind.HEADER, bytes(32)),
            room=size,
            take=lambda rq, result: size,
        )
        return struct.unpack(f"<{NR_STAMPS}Q", reply.data)

    def stat(self, target: ObjectId) -> ObjectInfo | None:
        """Describe an object; None if it is not there."""
        reply = self._call(Op.INFO, target, ok=errno.ENOENT)
        return None if reply.result < 0 else ObjectInfo.unpack(reply.inline)

    def capacity(self, kind: ObjectKind) -> ObjectInfo:
        """Describe the storage that holds objects of this kind."""
        reply = self._call(Op.INFO, NOTHING, port=port_of(kind))
        return ObjectInfo.unpack(reply.inline)

    def list(self, kind: ObjectKind) -> Iterator[ListEntry]:
        """Yield all objects of a kind, in no order.

        An object that exists all the while is yielded once or more; one that comes or
        goes meanwhile may be missed.
        """
        for page in self._pages(kind, _LIST_ROOM):
            yield from unpack_list_entries(page.data, page.result)

    def listing(
        self,
        kind: ObjectKind,
        first: int = 0,
        end: int = NR_STAMPS,
        *,
        expected: int | None = None,
    ) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield objects of a kind as plain tuples: for callers that list very many.

        Args:
            kind: of the objects.
            first: of headers and content the smallest first byte of the id; else 0.
            end: of them the first byte before which to end.
            expected: how many there are about.

        Yields:
            The id, its size and what it takes on disk [bytes], and its version.
        """
        room = _LIST_ROOM
        if expected is not None:
            room = min(room, (expected + _LIST_MORE) * ListEntry.LAYOUT.size)
        # 0, 0 is all of them, of every kind.
        args = (first, end) if (first, end) != (0, NR_STAMPS) else (0, 0)
        for page in self._pages(kind, room, args):
            yield from _ENTRY.iter_unpack(page.data)

    def _pages(
        self, kind: ObjectKind, room: int, args: tuple[int, ...] = ()
    ) -> Iterator[Reply]:
        cursor = bytes(_OPAQUE.size)
        target = ObjectId(kind, bytes(32))
        while True:
            reply = self._call(
                Op.LIST,
                target,
                inline=cursor,
                room=room,
                args=args,
                take=lambda rq, result: result * ListEntry.LAYOUT.size,
            )
            yield reply
            cursor = reply.inline[: _OPAQUE.size]
            if _OPAQUE.unpack(cursor)[0] == 0:
                return

    def acquire(self, target: ObjectId, lease: Lease) -> tuple[bool, Lease]:
        """Take or renew a lease; renew only, if the lease asked for has a fence.

        Returns:
            Whether it was granted, and the lease granted or the holder's.
        """
        refused = (errno.EBUSY, errno.ESTALE)
        reply = self._call(Op.ACQUIRE, target, inline=lease.pack(), ok=refused)
        granted = reply.result >= 0
        if granted:
            self._step(Op.ACQUIRE, target)
        return granted, Lease.unpack(reply.inline)

    def release(self, target: ObjectId, lease: Lease, *, force: bool = False) -> bool:
        """Give back a lease; with `force`, break it.

        Returns:
            False if it was not held by the lease's owner.
        """
        flags = Flag.FORCE if force else Flag(0)
        reply = self._call(
            Op.RELEASE, target, inline=lease.pack(), flags=flags, ok=errno.ESTALE
        )
        if reply.result < 0:
            return False
        self._step(Op.RELEASE, target)
        return True

    def begin_presence(self, uuid: bytes, ask: Presence) -> tuple[bool, Presence]:
        """Begin or renew the presence of instance `uuid`.

        Returns:
            Whether it was granted, and the presence granted or the one that is there.
        """
        target = presence_id(uuid)
        reply = self._call(Op.ACQUIRE, target, inline=ask.pack(), ok=(errno.EBUSY,))
        return reply.result >= 0, Presence.unpack(reply.inline)

    def end_presence(self, uuid: bytes, ask: Presence) -> bool:
        """Give a presence back; false if it is another incarnation's, or not there."""
        target = presence_id(uuid)
        gone = (errno.ESTALE, errno.ENOENT)
        return self._call(Op.RELEASE, target, inline=ask.pack(), ok=gone).result >= 0

    def _step(self, op: Op, target: ObjectId) -> None:
        if self.stepped is not None:
            self.stepped(op, target)

    def _call(
        self,
        op: Op,
        target: ObjectId,
        *,
        port: int | None = None,
        offset: int = 0,
        size: int | None = None,
        data: ReadableBuffer = b"",
        room: int = 0,
        flags: int = 0,
        args: tuple[int, ...] = (),
        inline: bytes = b"",
        ok: int | tuple[int, ...] = 0,
        take: Callable[[Request, int], int] | None = None,
    ) -> Reply:
        for tries_left in (1, 0):
            reply = self._messenger.call(
                port_of(target.kind) if port is None else port,
                op,
                target=target,
                offset=offset,
                size=size,
                data=data,
                room=room,
                flags=flags,
                args=args,
                inline=inline,
                take=take,
            )
            died = reply.result in (-errno.EOWNERDEAD, -errno.ECANCELED)
            if not (died and tries_left and op in _REPEATABLE):
                break
        fine = ok if isinstance(ok, tuple) else (ok,)
        if reply.result < 0 and -reply.result not in fine:
            raise _failure(op, target, reply.result)
        return reply


def _result(rq: Request, result: int) -> int:
    return result


def _failure(op: Op, target: ObjectId, result: int) -> ArchipelagoError:
    what = f"cannot {op.name.lower()} {target}"
    if result == -errno.ESTALE:
        return LeaseLost(f"{what}: its lease or version has moved on")
    if result == -errno.ENOENT:
        return BlockNotFound(f"{what}: it is not there")
    if result == -errno.EOWNERDEAD:
        return BackendUnavailable(f"{what}: the blocker died; try again")
    return from_errno(result, what, block=True)
