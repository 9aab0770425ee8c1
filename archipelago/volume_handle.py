# SPDX-License-Identifier: Apache-2.0
"""An open volume: reading and writing through the segment.

Any number of threads may use one `Volume`.  Large transfers are cut into pieces of
which several are under way at once.  If a peer restarts, what was under way is
repeated; if that was vlmcd, the volume is opened again first, by its uuid, whatever its
name is by then.  Nothing that was answered is lost by that, unless another node has had
the volume meanwhile: then the next `flush` fails once if something was not flushed.

A range that does not lie in the volume is refused before anything is changed, and a
signal such as Ctrl-C leaves the volume usable; what was under way then is done, or not.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import threading
import time
import warnings
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
from archipelago.room import no_room, take_buffer
from archipelago.transfer import PIECE_BYTES, Transfer
from xseg import Buffer
from xseg.closing import Closing
from xseg.constants import (
    BUFFER_MAX_BYTES,
    PORT_VLMCD,
    SECTOR_BYTES,
    Flag,
    Op,
    VolumeFlag,
)
from xseg.errors import PortUnbound, SegmentFull, WouldBlock
from xseg.payload import Run, VolumeInfo, unpack_runs

if TYPE_CHECKING:
    from typing import SupportsIndex

    from _typeshed import ReadableBuffer, WriteableBuffer

    from archipelago.client import Client
    from archipelago.volume_queue import VolumeQueue

#: Largest range of one ZERO, DISCARD or MAPR [bytes].
_RANGE_BYTES = 1 << 30
_RUNS_ROOM = 64 << 10
#: How long to try while vlmcd is away [s]: longer than the supervisor's longest pause
#: before a start, and as long as vlmcd itself tries to reach other peers.
_PATIENCE = 30.0
#: How long a volume that is dropped without `Volume.close` holds its thread up [s].
_CLOSE_WAIT = 1.0
#: First offset that no request can name [bytes].
_OFFSET_END = 1 << 63
#: What an op is called in a message, if not by its own name.
_VERBS = {Op.MAPR: "map", Op.INFO: "describe"}


class Volume(Closing):
    """An open volume or snapshot; made by `Client.open`.

    Args:
        client: the connection.
        name: of the volume.
        read_only: open without the lease.
    """

    def __init__(self, client: Client, name: str, read_only: bool = False) -> None:
        self._closed = True
        self._client = client
        self._segment = client.segment
        self._messenger = client.messenger
        self._flags = Flag.RDONLY if read_only else Flag(0)
        self._guard = threading.Lock()
        self._handle, raw, _ = client.open_handle(name, self._flags)
        self._name = name
        record = VolumeInfo.unpack(raw)
        self._uuid = record.uuid
        self._fence = record.fence
        self._read_only = read_only or bool(record.flags & VolumeFlag.READONLY)
        self._closed = False
        #: answered changes, and how many of them a flush has covered; threads count
        #: under the guard
        self._count = threading.Lock()
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

    def pread(self, size: SupportsIndex, offset: SupportsIndex) -> bytes:
        """Read bytes.

        Args:
            size: [bytes]; all of them lie in the volume.
            offset: [bytes], of any alignment.

        Raises:
            UsageError: the range is not inside the volume.
        """
        size, offset = operator.index(size), operator.index(offset)
        if 0 < size <= PIECE_BYTES:
            with take_buffer(self._segment, size, _PATIENCE) as buffer:
                self._whole(Op.READ, buffer, offset, size)
                return bytes(buffer)
        self._require_inside(Op.READ, offset, size)
        into = bytearray(size)
        self.pread_into(into, offset)
        return bytes(into)

    def pread_into(self, buffer: WriteableBuffer, offset: SupportsIndex) -> int:
        """Fill a buffer.

        Args:
            buffer: writable and contiguous; its length says how much.
            offset: [bytes], of any alignment.

        Returns:
            Its length [bytes].
        """
        with memoryview(buffer) as whole, whole.cast("B") as view:
            self._transfer(Op.READ, view, operator.index(offset))
            return len(view)

    def pwrite(
        self, data: ReadableBuffer, offset: SupportsIndex, *, durable: bool = False
    ) -> int:
        """Write bytes; a read that follows sees them.

        Args:
            data: contiguous.
            offset: [bytes], of any alignment.
            durable: return after they are safe (FUA); otherwise `flush` makes them so.

        Returns:
            The length of `data` [bytes].

        Raises:
            UsageError: the range is not inside the volume; nothing is written.
            ReadOnlySnapshot: it cannot be written to.
            NoSpace: the store is full.
        """
        with memoryview(data) as whole, whole.cast("B") as view:
            flags = Flag.FUA if durable else 0
            self._transfer(Op.WRITE, view, operator.index(offset), flags)
            self.note_change()
            return len(view)

    def zero(self, offset: SupportsIndex, size: SupportsIndex) -> None:
        """Make a range [bytes] read as zeros; its storage is given back.

        Raises:
            UsageError: the range is not inside the volume; nothing is changed.
        """
        self._range(Op.ZERO, operator.index(offset), operator.index(size))

    def discard(self, offset: SupportsIndex, size: SupportsIndex) -> None:
        """Say that a range [bytes] is not needed any more; it reads as zeros.

        Raises:
            UsageError: the range is not inside the volume; nothing is changed.
        """
        self._range(Op.DISCARD, operator.index(offset), operator.index(size))

    def flush(self) -> None:
        """Return after everything that was written before is safe from any crash.

        Raises:
            IoError: it is not, or another node has had the volume since the last flush.
        """
        with self._count:
            changes = self._changes
        self._small(Op.FLUSH)
        with self._count:
            self._flushed = max(self._flushed, changes)
            doubtful, self._doubtful = self._doubtful, False
        if doubtful:
            raise IoError(
                f'another node had "{self._name}" before it was flushed here: writes '
                "since the flush before may be lost"
            )

    def extents(
        self, offset: SupportsIndex = 0, size: SupportsIndex | None = None
    ) -> Iterator[Run]:
        """Yield where the sectors of a range come from, in order.

        Args:
            offset: [bytes]; rounded down to a whole sector.
            size: [bytes]; None goes to the end of the volume.  Its end is rounded up:
                the last run may go beyond the end of the volume.

        Raises:
            UsageError: the range is not inside the volume.
        """
        start, length = operator.index(offset), self.size
        end = length if size is None else start + operator.index(size)
        self._require_inside(Op.MAPR, start, end - start, length)
        return self._extents(start - start % SECTOR_BYTES, end + -end % SECTOR_BYTES)

    def _extents(self, offset: int, end: int) -> Iterator[Run]:
        while offset < end:
            runs = self._runs(offset, min(end - offset, _RANGE_BYTES))
            yield from runs
            offset = runs[-1].offset + runs[-1].size

    # ---- without a copy --------------------------------------------------------------

    def buffer(self, size: SupportsIndex) -> Buffer:
        """Take a buffer of the segment, to fill or read in place.

        Args:
            size: up to 4 MiB [bytes].

        Returns:
            A writable buffer object; give it back with ``with`` or `free`.
        """
        size = operator.index(size)
        if not 0 < size <= BUFFER_MAX_BYTES:
            raise UsageError(
                f"a buffer cannot have {size} bytes: choose from 1 to "
                f"{BUFFER_MAX_BYTES}"
            )
        return take_buffer(self._segment, size, _PATIENCE)

    def write_buffer(
        self,
        buffer: Buffer,
        offset: SupportsIndex,
        length: SupportsIndex | None = None,
    ) -> int:
        """Write from a buffer of `Volume.buffer` without copying it.

        Args:
            buffer: left alone until this returns.
            offset: [bytes].
            length: how much of it, from its start [bytes]; None: all.
        """
        size = buffer_part(buffer, 0, length)
        done = self._whole(Op.WRITE, buffer, operator.index(offset), size)
        self.note_change()
        return done

    def read_buffer(
        self,
        buffer: Buffer,
        offset: SupportsIndex,
        length: SupportsIndex | None = None,
    ) -> int:
        """Read into a buffer of `Volume.buffer` without a copy."""
        size = buffer_part(buffer, 0, length)
        return self._whole(Op.READ, buffer, operator.index(offset), size)

    def queue(self, depth: SupportsIndex = 32) -> VolumeQueue:
        """Make a queue that keeps many requests of one thread under way."""
        from archipelago.volume_queue import VolumeQueue

        return VolumeQueue(self, operator.index(depth))

    # ---- end -------------------------------------------------------------------------

    def __del__(self) -> None:
        # Collection may come in the middle of another call of this thread, so that its
        # port and locks are taken: another thread closes, and is waited for a little.
        if self._closed or self._segment.closed:
            return
        said = f"{self!r} was not closed"
        closing = threading.Thread(target=self.close, name="volume-close")
        with contextlib.suppress(RuntimeError):  # the interpreter ends
            closing.start()
            closing.join(_CLOSE_WAIT)
        # Last: a filter may turn it into an exception.
        warnings.warn(said, ResourceWarning, stacklevel=2, source=self)

    def close(self) -> None:
        """Close it; the last close of a volume flushes it.  Twice is harmless.

        Raises:
            ArchipelagoError: what was written may not be safe.
        """
        if self._closed:
            return
        try:
            if not self._segment.closed:
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
            reply = self._messenger.call(
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
        with self._count:
            self._changes += 1

    def _is_flushed(self) -> bool:
        with self._count:
            return self._flushed == self._changes

    def _require_inside(
        self, op: Op, offset: int, size: int, volume_size: int | None = None
    ) -> None:
        """Refuse a range of several requests before the first of them is sent.

        One request alone needs none of this: vlmcd looks at its whole range first.
        """
        if offset < 0 or size < 0:
            raise self._outside(op, offset, size)
        if volume_size is None:
            volume_size = self.size
        if offset + size > volume_size:
            raise self._outside(op, offset, size, volume_size)

    def _range(self, op: Op, offset: int, size: int) -> None:
        self._require_inside(op, offset, size)
        end = offset + size
        while offset < end:
            length = min(end - offset, _RANGE_BYTES)
            self._small(op, offset, length)
            self.note_change()
            offset += length

    def _small(self, op: Op, offset: int = 0, size: int = 0) -> int:
        """Send a request that carries no data."""

        def attempt(handle: int) -> int:
            messenger = self._messenger
            with messenger.port.request() as rq:
                rq.ask(op, handle, offset, size)
                return messenger.port.call(rq, PORT_VLMCD)

        return self._checked(op, offset, size, self._persist(attempt))

    def _whole(
        self, op: Op, buffer: Buffer, offset: int, size: int, flags: Flag | int = 0
    ) -> int:
        """Send one request whose bytes lie in a buffer of the segment."""
        if not 0 <= offset < _OFFSET_END:
            raise self._outside(op, offset, size)

        def attempt(handle: int) -> int:
            port = self._messenger.port
            with port.request() as rq:
                rq.ask(op, handle, offset, size, flags)
                rq.set_data(buffer, 0, size)
                return port.call(rq, PORT_VLMCD)

        return self._checked(op, offset, size, self._persist(attempt))

    def _transfer(
        self, op: Op, view: memoryview, offset: int, flags: Flag | int = 0
    ) -> None:
        """Do all of a request, in pieces; all or an exception."""
        size = len(view)
        if 0 < size <= PIECE_BYTES:
            with take_buffer(self._segment, size, _PATIENCE) as buffer:
                if op is Op.WRITE:
                    with memoryview(buffer) as data:
                        data[:] = view
                self._whole(op, buffer, offset, size, flags)
                if op is Op.READ:
                    with memoryview(buffer) as data:
                        view[:] = data
            return
        self._require_inside(op, offset, size)
        if size == 0:
            return

        def attempt(handle: int) -> int:
            return Transfer(self._client, handle, op, view, offset, flags).run()

        self._checked(op, offset, size, self._persist(attempt))

    def _checked(self, op: Op, offset: int, size: int, result: int) -> int:
        if result < 0:
            raise self._failure(op, offset, size, result)
        return result

    def _persist(self, attempt: Callable[[int], int]) -> int:
        """Try with the handle, and for a while again if a peer died meanwhile.

        What is repeated is the same bytes at the same place.  A volume that vlmcd
        knows and that is stale all the same has lost its map, and perhaps writes that
        were not flushed: that is not for us to gloss over.
        """
        handle = self.handle
        result = _tried(attempt, handle)
        if result >= 0 or result not in _AGAIN:
            return result
        started = time.monotonic()
        pause = 0.001
        while time.monotonic() - started < _PATIENCE:
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
            if result != -errno.EAGAIN:
                if self._known(handle):
                    if result == -errno.ESTALE:
                        return result
                else:
                    try:
                        handle = self._reopen(handle)
                    except NotRunning:
                        continue
            result = _tried(attempt, handle)
            if result not in _AGAIN:
                break
        return result

    def _known(self, handle: int) -> bool:
        """True if vlmcd has it open: then it is the volume that was stopped."""
        try:
            reply = self._messenger.call(PORT_VLMCD, Op.INFO, handle=handle)
        except NotRunning:
            return False
        return reply.result >= 0

    def _reopen(self, stale: int) -> int:
        with self._guard:
            if self._handle == stale:
                self._handle, record, since = self._open_again()
                # Restarts take the lease back, however often: nothing is missing.
                if since > self._fence and not self._is_flushed():
                    with self._count:
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

    def _outside(
        self, op: Op, offset: int, size: int, volume_size: int | None = None
    ) -> UsageError:
        of = "" if volume_size is None else f" of {volume_size} bytes"
        return UsageError(
            f"cannot {_VERBS.get(op, op.name.lower())} {size} bytes at {offset} of "
            f'"{self._name}": they do not lie in the volume{of}'
        )

    def _failure(self, op: Op, offset: int, size: int, result: int) -> ArchipelagoError:
        if result == -errno.EINVAL and size:
            return self._outside(op, offset, size, self.size)
        what = f'cannot {_VERBS.get(op, op.name.lower())} "{self._name}"'
        if size:
            what += f" ({size} bytes at {offset})"
        if result == -errno.EAGAIN:
            return no_room(self._segment.name)
        if result == -errno.ESTALE:
            return LeaseLost(
                f"{what}: this instance lost the volume's lease, or had to stop it; "
                "close it, then open it again"
            )
        return from_errno(result, what)


def buffer_part(buffer: Buffer, start: int, length: SupportsIndex | None) -> int:
    """How much of a buffer is meant [bytes].

    Raises:
        UsageError: that part does not lie in the buffer.
    """
    size = len(buffer) - start if length is None else operator.index(length)
    if start < 0 or size < 0 or start + size > len(buffer):
        raise UsageError(
            f"{size} bytes from {start} on do not lie in a buffer of {len(buffer)}"
        )
    return size


def _tried(attempt: Callable[[int], int], handle: int) -> int:
    """What came of one try; that it could not be sent, as a negated errno."""
    try:
        return attempt(handle)
    except PortUnbound:
        return -errno.EPIPE
    except (SegmentFull, WouldBlock):
        return -errno.EAGAIN


#: Results after which a request may be sent again: vlmcd does not know the handle, was
#: not there or died, or the segment had no room for the request.
_AGAIN = frozenset(
    {-errno.ESTALE, -errno.EPIPE, -errno.EOWNERDEAD, -errno.ECANCELED, -errno.EAGAIN}
)
