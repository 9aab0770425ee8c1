# SPDX-License-Identifier: Apache-2.0
"""An open volume: reading and writing through the segment.

Any number of threads may use one `Volume`.  Large transfers are cut into pieces of
which several are under way at once.  If a peer restarts, what was under way is
repeated; if that was vlmcd, the volume is opened again first, by its uuid, whatever its
name is by then.  Nothing that was answered is lost by that, unless another node has had
the volume meanwhile: then the next `flush` fails once if something was not flushed.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from archipelago.errors import (
    ArchipelagoError,
    IoError,
    LeaseLost,
    NotRunning,
    UsageError,
    VolumeNotFound,
    from_errno,
)
from archipelago.ids import uuid_text
from archipelago.messenger import Reply
from xseg import Buffer, Port, Request
from xseg.closing import Closing
from xseg.constants import (
    BUFFER_MAX_BYTES,
    PORT_VLMCD,
    SECTOR_BYTES,
    Flag,
    Op,
    VolumeFlag,
)
from xseg.errors import PortUnbound
from xseg.payload import Run, VolumeInfo, unpack_runs

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from archipelago.client import Client
    from archipelago.volume_queue import VolumeQueue

#: Largest piece of a transfer [bytes], and how many are under way at once.
_PIECE_BYTES = 1 << 20
_PIECES = 4
#: Largest range of one ZERO, DISCARD or MAPR [bytes].
_RANGE_BYTES = 1 << 30
_RUNS_ROOM = 64 << 10
#: How long to try while vlmcd is away [s]: longer than the supervisor's longest pause
#: before a start, and as long as vlmcd itself tries to reach other peers.
_PATIENCE = 30.0


class Volume(Closing):
    """An open volume or snapshot; made by `Client.open`.

    Args:
        client: the connection.
        name: of the volume.
        read_only: open without the lease.
    """

    def __init__(self, client: Client, name: str, read_only: bool = False) -> None:
        self._client = client
        self._flags = Flag.RDONLY if read_only else Flag(0)
        self._guard = threading.Lock()
        self._handle, raw, _ = client.open_handle(name, self._flags)
        self._name = name
        record = VolumeInfo.unpack(raw)
        self._uuid = record.uuid
        self._fence = record.fence
        self._read_only = read_only or bool(record.flags & VolumeFlag.READONLY)
        self._closed = False
        #: answered changes, and how many of them a flush has covered
        self._changes = 0
        self._flushed = 0
        self._doubtful = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Volume {self._name!r} {state}>"

    @property
    def name(self) -> str:
        """Its name now."""
        return self._record().name

    @property
    def size(self) -> int:
        """Its size now [bytes]."""
        return self._record().size_bytes

    @property
    def block_size(self) -> int:
        """Its block [bytes]."""
        return self._record().block_bytes

    @property
    def read_only(self) -> bool:
        """True if it cannot be written to."""
        return self._read_only

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    @property
    def handle(self) -> int:
        """The number by which vlmcd knows it."""
        if self._closed:
            raise UsageError(f'volume "{self._name}" is closed: open it again')
        return self._handle

    @property
    def client(self) -> Client:
        """The connection it was opened through."""
        return self._client

    # ---- reading and writing ---------------------------------------------------------

    def pread(self, size: int, offset: int) -> bytes:
        """Read bytes.

        Args:
            size: [bytes]; all of them lie in the volume.
            offset: [bytes], of any alignment.

        Raises:
            UsageError: the range is not inside the volume.
        """
        if size < 0:
            raise UsageError(f"cannot read {size} bytes")
        if 0 < size <= _PIECE_BYTES:
            with self.buffer(size) as buffer:
                self._whole(Op.READ, buffer, offset, size)
                with memoryview(buffer) as view:
                    return bytes(view[:size])
        into = bytearray(size)
        self.pread_into(into, offset)
        return bytes(into)

    def pread_into(self, buffer: WriteableBuffer, offset: int) -> int:
        """Fill a buffer.

        Args:
            buffer: writable and contiguous; its length says how much.
            offset: [bytes], of any alignment.

        Returns:
            Its length [bytes].
        """
        with memoryview(buffer) as whole, whole.cast("B") as view:
            self._transfer(Op.READ, view, offset, len(view), Flag(0))
            return len(view)

    def pwrite(
        self, data: ReadableBuffer, offset: int, *, durable: bool = False
    ) -> int:
        """Write bytes; a read that follows sees them.

        Args:
            data: contiguous.
            offset: [bytes], of any alignment.
            durable: return after they are safe (FUA); otherwise `flush` makes them so.

        Returns:
            The length of `data` [bytes].

        Raises:
            ReadOnlySnapshot: it cannot be written to.
            NoSpace: the store is full.
        """
        with memoryview(data) as whole, whole.cast("B") as view:
            flags = Flag.FUA if durable else Flag(0)
            self._transfer(Op.WRITE, view, offset, len(view), flags)
            self.note_change()
            return len(view)

    def zero(self, offset: int, size: int) -> None:
        """Make a range [bytes] read as zeros; its storage is given back."""
        self._range(Op.ZERO, offset, size)

    def discard(self, offset: int, size: int) -> None:
        """Say that a range [bytes] is not needed any more; it reads as zeros."""
        self._range(Op.DISCARD, offset, size)

    def flush(self) -> None:
        """Return after everything that was written before is safe from any crash.

        Raises:
            IoError: it is not, or another node has had the volume since the last flush.
        """
        changes = self._changes
        self._transfer(Op.FLUSH, None, 0, 0, Flag(0))
        self._flushed = max(self._flushed, changes)
        if self._doubtful:
            self._doubtful = False
            raise IoError(
                f'another node had "{self._name}" before it was flushed here: writes '
                "since the flush before may be lost"
            )

    def extents(self, offset: int = 0, size: int | None = None) -> Iterator[Run]:
        """Yield where the sectors of a range come from, in order.

        Args:
            offset: [bytes]; rounded down to a whole sector.
            size: [bytes]; None goes to the end of the volume.  Its end is rounded up:
                the last run may go beyond the end of the volume.
        """
        end = self.size if size is None else offset + size
        offset -= offset % SECTOR_BYTES
        end += -end % SECTOR_BYTES
        while offset < end:
            runs = self._runs(offset, min(end - offset, _RANGE_BYTES))
            yield from runs
            offset = runs[-1].offset + runs[-1].size

    # ---- without a copy --------------------------------------------------------------

    def buffer(self, size: int) -> Buffer:
        """Take a buffer of the segment, to fill or read in place.

        Args:
            size: up to 4 MiB [bytes].

        Returns:
            A writable buffer object; give it back with ``with`` or `free`.
        """
        return self._client.segment.alloc(size)

    def write_buffer(
        self, buffer: Buffer, offset: int, length: int | None = None
    ) -> int:
        """Write from a buffer of `Volume.buffer` without copying it.

        Args:
            buffer: left alone until this returns.
            offset: [bytes].
            length: how much of it, from its start [bytes]; None: all.
        """
        done = self._whole(Op.WRITE, buffer, offset, length)
        self.note_change()
        return done

    def read_buffer(
        self, buffer: Buffer, offset: int, length: int | None = None
    ) -> int:
        """Read into a buffer of `Volume.buffer` without a copy."""
        return self._whole(Op.READ, buffer, offset, length)

    def queue(self, depth: int = 32) -> VolumeQueue:
        """Make a queue that keeps many requests of one thread under way."""
        from archipelago.volume_queue import VolumeQueue

        return VolumeQueue(self, depth)

    # ---- end -------------------------------------------------------------------------

    def close(self) -> None:
        """Close it; the last close of a volume flushes it.  Twice is harmless.

        Raises:
            ArchipelagoError: what was written may not be safe.
        """
        if self._closed:
            return
        try:
            if not self._client.segment.closed:
                self._close()
        finally:
            self._closed = True

    # ---- how -------------------------------------------------------------------------

    def _close(self) -> None:
        """Flush, then close: of a CLOSE that died nobody knows what it flushed.

        The next vlmcd does not know the handle, and one whose lease is lost says the
        same; FLUSH can tell the two apart, because it does not take the handle away.
        """
        client = self._client
        try:
            if not self._is_flushed():
                self.flush()
        except NotRunning:
            raise  # nor is anybody there to close it
        except ArchipelagoError:
            with contextlib.suppress(ArchipelagoError):
                client.close_handle(self._handle)
            raise
        client.close_handle(self._handle)

    def _record(self) -> VolumeInfo:
        reply = self._ask(Op.INFO)
        if reply.result < 0:
            raise self._failure(Op.INFO, 0, 0, reply.result)
        return VolumeInfo.unpack(reply.inline)

    def _runs(self, offset: int, size: int) -> list[Run]:
        reply = self._ask(Op.MAPR, offset, size, _RUNS_ROOM)
        if reply.result <= 0:
            raise self._failure(Op.MAPR, offset, size, reply.result or -errno.EIO)
        return unpack_runs(reply.data, reply.result)

    def _ask(self, op: Op, offset: int = 0, size: int = 0, room: int = 0) -> Reply:
        """Send one small request."""
        replies: list[Reply] = []

        def attempt(handle: int) -> int:
            reply = self._client.messenger.call(
                PORT_VLMCD,
                op,
                handle=handle,
                offset=offset,
                size=size,
                room=room,
                take=lambda rq, result: result * Run.LAYOUT.size,
            )
            replies.append(reply)
            return reply.result

        self._persist(attempt)
        return replies[-1]

    def note_change(self) -> None:
        """Note that something was answered that no flush from before covers.

        After the answer, not before the request: a flush that runs meanwhile need not
        cover it.
        """
        self._changes += 1

    def _is_flushed(self) -> bool:
        return self._flushed == self._changes

    def _range(self, op: Op, offset: int, size: int) -> None:
        end = offset + size
        while offset < end:
            length = min(end - offset, _RANGE_BYTES)
            self._transfer(op, None, offset, length, Flag(0))
            self.note_change()
            offset += length

    def _whole(self, op: Op, buffer: Buffer, offset: int, length: int | None) -> int:
        size = len(buffer) if length is None else length
        if offset < 0:
            raise UsageError(f"a volume has no offset {offset}")

        def attempt(handle: int) -> int:
            with self._client.messenger.port.request() as rq:
                _fill(rq, op, handle, offset, size, Flag(0))
                rq.set_data(buffer, 0, size)
                return self._call(rq)

        result = self._persist(attempt)
        if result < 0:
            raise self._failure(op, offset, size, result)
        return result

    def _transfer(
        self, op: Op, view: memoryview | None, offset: int, size: int, flags: Flag
    ) -> None:
        """Do all of a request, in pieces; all or an exception."""
        if offset < 0:
            raise UsageError(f"a volume has no offset {offset}")
        if size == 0 and op is not Op.FLUSH:
            return

        def attempt(handle: int) -> int:
            client = self._client
            return _Transfer(client, handle, op, view, offset, size, flags).run()

        result = self._persist(attempt)
        if result < 0:
            raise self._failure(op, offset, size, result)

    def _call(self, rq: Request) -> int:
        try:
            return self._client.messenger.port.call(rq, PORT_VLMCD)
        except PortUnbound:
            return -errno.EPIPE

    def _persist(self, attempt: Callable[[int], int]) -> int:
        """Try with the handle, and for a while again if a peer died meanwhile.

        What is repeated is the same bytes at the same place.  A volume that vlmcd
        knows and that is stale all the same has lost its map, and perhaps writes that
        were not flushed: that is not for us to gloss over.
        """
        started = time.monotonic()
        pause = 0.001
        handle = self.handle
        while True:
            result = attempt(handle)
            if not _lost(result) or time.monotonic() - started > _PATIENCE:
                return result
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
            if self._known(handle):
                if result == -errno.ESTALE:
                    return result
                continue
            try:
                handle = self._reopen(handle)
            except NotRunning:
                continue

    def _known(self, handle: int) -> bool:
        """True if vlmcd has it open: then it is the volume that was stopped."""
        try:
            reply = self._client.messenger.call(PORT_VLMCD, Op.INFO, handle=handle)
        except NotRunning:
            return False
        return reply.result >= 0

    def _reopen(self, stale: int) -> int:
        with self._guard:
            if self._handle == stale:
                self._handle, record, since = self._open_again()
                # Restarts take the lease back, however often: nothing is missing.
                if since > self._fence and not self._is_flushed():
                    self._doubtful = True
                self._fence = record.fence
            return self._handle

    def _open_again(self) -> tuple[int, VolumeInfo, int]:
        """Open the same volume, under the name that it has now."""
        client = self._client
        with contextlib.suppress(VolumeNotFound):
            handle, raw, since = client.open_handle(self._name, self._flags)
            record = VolumeInfo.unpack(raw)
            if record.uuid == self._uuid:
                return handle, record, since
            client.close_handle(handle)
        uuid = uuid_text(self._uuid)
        for info in client.list():
            if info.uuid == uuid and info.name != self._name:
                self._name = info.name
                return self._open_again()
        raise VolumeNotFound(f'there is no volume "{self._name}" any more')

    def _failure(self, op: Op, offset: int, size: int, result: int) -> ArchipelagoError:
        what = f'cannot {op.name.lower()} "{self._name}"'
        if size:
            what += f" ({size} bytes at {offset})"
        if result == -errno.EINVAL:
            return UsageError(
                f"{what}: the range does not lie in the volume of {self.size} bytes"
            )
        if result == -errno.ESTALE:
            return LeaseLost(
                f"{what}: this instance lost the volume's lease, or had to stop it; "
                "close it, then open it again"
            )
        return from_errno(result, what)


class _Transfer:
    """One large request as several small ones."""

    def __init__(
        self,
        client: Client,
        handle: int,
        op: Op,
        view: memoryview | None,
        offset: int,
        size: int,
        flags: Flag,
    ) -> None:
        self._client = client
        self._port: Port = client.messenger.port
        self._handle = handle
        self._op = op
        self._view = view
        self._offset = offset
        self._size = size
        self._flags = flags
        self._next = 0
        self._error = 0
        #: by index of the request: itself, its buffer, its place in the view [bytes]
        self._pending: dict[int, tuple[Request, Buffer | None, int]] = {}

    def run(self) -> int:
        """Returns 0, or the first error once nothing is under way any more."""
        first = True
        while self._pending or first or (self._next < self._size and not self._error):
            first = False
            while self._may_send():
                self._send()
            if self._pending:
                self._receive()
        return self._error

    def _may_send(self) -> bool:
        if self._error or len(self._pending) >= _PIECES:
            return False
        return self._next < self._size or (self._op is Op.FLUSH and not self._pending)

    def _send(self) -> None:
        start = self._next
        length = self._size - start
        buffer = None
        if self._view is not None:
            length = min(length, _PIECE_BYTES)
            buffer = self._client.segment.alloc(length)
        rq = self._port.request()
        try:
            _fill(rq, self._op, self._handle, self._offset + start, length, self._flags)
            if buffer is not None and self._view is not None:
                if self._op is Op.WRITE:
                    with memoryview(buffer) as into:
                        into[:length] = self._view[start : start + length]
                rq.set_data(buffer, 0, length)
            self._port.submit(rq, PORT_VLMCD)
        except BaseException as error:
            rq.free()
            if buffer is not None:
                buffer.free()
            if isinstance(error, PortUnbound):
                self._error = -errno.EPIPE
                return
            raise
        self._pending[rq.index] = rq, buffer, start
        self._next = start + length if self._op is not Op.FLUSH else self._size

    def _receive(self) -> None:
        while (rq := self._port.reap()) is None:
            self._port.wait()
        known = self._pending.pop(rq.index, None)
        if known is None:
            rq.free()
            return
        _, buffer, start = known
        try:
            result = rq.result
            if result < 0:
                self._error = self._error or result
            elif self._op is Op.READ and buffer is not None and self._view is not None:
                length = min(self._size - start, _PIECE_BYTES)
                with memoryview(buffer) as data:
                    self._view[start : start + length] = data[:length]
        finally:
            rq.free()
            if buffer is not None:
                buffer.free()


def _fill(
    rq: Request, op: Op, handle: int, offset: int, size: int, flags: Flag
) -> None:
    rq.op = op
    rq.handle = handle
    rq.offset = offset
    rq.size = size
    rq.flags = flags


def _lost(result: int) -> bool:
    """True if vlmcd does not know the handle, or was not there or died."""
    return result in (-errno.ESTALE, -errno.EPIPE, -errno.EOWNERDEAD, -errno.ECANCELED)


assert _PIECE_BYTES <= BUFFER_MAX_BYTES
