# SPDX-License-Identifier: Apache-2.0
"""A queue of requests to one volume: many under way, one thread.

::

    with volume.queue(32) as q, volume.buffer(4096) as b:
        q.read(b, 0, tag="first")
        for tag, result in q.wait():
            ...

Nothing is copied and nothing is repeated: results are bytes or negated errnos as vlmcd
gives them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from archipelago.errors import BackendUnavailable, NotRunning, UsageError
from archipelago.room import no_room
from archipelago.volume_handle import buffer_part
from xseg import Buffer, Request
from xseg.closing import Closing
from xseg.constants import PORT_VLMCD, Flag, Op
from xseg.errors import PortUnbound, SegmentFull, WouldBlock

if TYPE_CHECKING:
    from typing import SupportsIndex

    from archipelago.volume_handle import Volume


class VolumeQueue(Closing):
    """Requests of one thread to one volume.

    Args:
        volume: open, and open until the queue is closed.
        depth: most requests under way, 1 to 1024.

    Raises:
        UsageError: no queue is so deep.
        BackendUnavailable: the segment has had no port, or has no requests, for it.
    """

    def __init__(self, volume: Volume, depth: int) -> None:
        if not 1 <= depth <= 1024:
            raise UsageError(f"a queue cannot be {depth} deep: choose from 1 to 1024")
        self._volume = volume
        self._handle = volume.handle
        self._port = volume.client.messenger.bind("client-queue")
        self._idle: list[Request] = []
        self._tags: dict[int, Any] = {}
        try:
            for _ in range(depth):
                self._idle.append(self._port.request())
        except SegmentFull:
            self.close()
            raise BackendUnavailable(
                f"no {depth} requests are free for a queue so deep: choose a smaller "
                "depth, or raise segment.requests"
            ) from None
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Requests under way."""
        return len(self._tags)

    @property
    def full(self) -> bool:
        """True if `wait` must come before the next request."""
        return not self._idle

    def read(
        self, buffer: Buffer, offset: SupportsIndex, tag: Any = None,
        start: SupportsIndex = 0, length: SupportsIndex | None = None,
    ) -> None:  # fmt: skip
        """Begin to read into a part of a buffer of `Volume.buffer`.

        Args:
            buffer: left alone until the result is there.
            offset: in the volume [bytes].
            tag: comes back with the result.
            start: where in the buffer [bytes].
            length: how much [bytes]; None: the rest of the buffer.

        Raises:
            UsageError: the queue is full, or that is no part of the buffer.  A range
                outside of the volume is told by the result, and changes nothing.
            NotRunning: vlmcd is not there now.
            BackendUnavailable: vlmcd takes no more requests now.
        """
        self._begin(Op.READ, buffer, offset, tag, start, length, 0)

    def write(
        self, buffer: Buffer, offset: SupportsIndex, tag: Any = None,
        start: SupportsIndex = 0, length: SupportsIndex | None = None, *,
        durable: bool = False,
    ) -> None:  # fmt: skip
        """Begin to write from a part of a buffer; as `read`."""
        flags = Flag.FUA if durable else 0
        self._begin(Op.WRITE, buffer, offset, tag, start, length, flags)

    def flush(self, tag: Any = None) -> None:
        """Begin to flush what has been answered so far."""
        rq = self._take()
        rq.ask(Op.FLUSH, self._handle, 0, 0)
        rq.set_data(None)
        self._send(rq, tag)

    def wait(self, least: int = 1) -> Iterator[tuple[Any, int]]:
        """Wait for results.

        Args:
            least: wait for so many, or for all that are under way.

        Yields:
            (tag, result): bytes, or a negated errno.
        """
        least = min(least, len(self._tags))
        while True:
            rq = self._port.reap()
            if rq is not None:
                least -= 1
                tag, result = self._tags.pop(rq.index), rq.result
                self._idle.append(rq)
                self._volume.note_change()
                yield tag, result
            elif least <= 0:
                return
            else:
                self._port.wait()

    def close(self) -> None:
        """Wait for what is under way and free everything.  Twice is harmless."""
        if self._port.closed:
            return
        for _ in self.wait(len(self._tags)):
            pass
        for rq in self._idle:
            rq.free()
        self._idle.clear()
        self._port.unbind()

    def _take(self) -> Request:
        if not self._idle:
            raise UsageError("the queue is full: wait for a result first")
        return self._idle.pop()

    def _begin(
        self,
        op: Op,
        buffer: Buffer,
        offset: SupportsIndex,
        tag: Any,
        start: SupportsIndex,
        length: SupportsIndex | None,
        flags: int,
    ) -> None:
        where, first = operator.index(offset), operator.index(start)
        if not 0 <= where < 1 << 63:
            raise UsageError(f"a volume has no offset {where}")
        size = buffer_part(buffer, first, length)
        rq = self._take()
        rq.ask(op, self._handle, where, size, flags)
        rq.set_data(buffer, first, size)
        self._send(rq, tag)

    def _send(self, rq: Request, tag: Any) -> None:
        try:
            self._port.submit(rq, PORT_VLMCD)
        except PortUnbound:
            self._idle.append(rq)
            raise NotRunning(
                'vlmcd does not run: try again, or "archipelago start vlmcd" if it was '
                "stopped"
            ) from None
        except WouldBlock:
            self._idle.append(rq)
            raise no_room(self._volume.client.segment.name) from None
        except BaseException:
            self._idle.append(rq)
            raise
        self._tags[rq.index] = tag
