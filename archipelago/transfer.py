# SPDX-License-Identifier: Apache-2.0
"""One large transfer of a volume as several requests, some under way at once."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xseg import Buffer, Request
from xseg.constants import BUFFER_MAX_BYTES, PORT_VLMCD, Flag, Op
from xseg.errors import PortUnbound, SegmentFull, WouldBlock

if TYPE_CHECKING:
    from archipelago.client import Client

__all__ = ["PIECE_BYTES", "Transfer"]

#: Largest piece of a transfer [bytes], and how many are under way at once.
PIECE_BYTES = 1 << 20
_PIECES = 4


class Transfer:
    """The pieces of one transfer.

    Args:
        client: the connection; the calling thread's port is used.
        handle: the open volume.
        op: READ or WRITE.
        view: where the bytes go to or come from.
        offset: in the volume [bytes].
        flags: of every request.
    """

    def __init__(
        self,
        client: Client,
        handle: int,
        op: Op,
        view: memoryview,
        offset: int,
        flags: Flag | int,
    ) -> None:
        self._segment = client.segment
        self._port = client.messenger.port
        self._handle = handle
        self._op = op
        self._view = view
        self._offset = offset
        self._size = len(view)
        self._flags = flags
        self._next = 0
        self._error = 0
        #: by index of the request: itself, its buffer, its place in the view [bytes]
        self._pending: dict[int, tuple[Request, Buffer, int]] = {}

    def run(self) -> int:
        """Returns 0, or the first error once nothing is under way any more."""
        try:
            while self._send_some() or self._pending:
                if self._pending:
                    self._receive()
        except BaseException:
            self._leave()
            raise
        return self._error

    def _send_some(self) -> bool:
        """Send what may be sent; true while there is more to send."""
        while (
            not self._error and self._next < self._size and len(self._pending) < _PIECES
        ):
            try:
                self._send()
            except (SegmentFull, WouldBlock):
                if self._pending:
                    break  # room comes back with what is under way
                self._error = -errno.EAGAIN
            except PortUnbound:
                self._error = -errno.EPIPE
        return not self._error and self._next < self._size

    def _send(self) -> None:
        start = self._next
        length = min(self._size - start, PIECE_BYTES)
        buffer = None
        rq = self._port.request()
        try:
            rq.ask(self._op, self._handle, self._offset + start, length, self._flags)
            buffer = self._segment.alloc(length)
            if self._op is Op.WRITE:
                with memoryview(buffer) as into:
                    into[:] = self._view[start : start + length]
            rq.set_data(buffer, 0, length)
            # Before it is sent: a signal may end this method behind that.
            self._pending[rq.index] = rq, buffer, start
            self._port.submit(rq, PORT_VLMCD)
        except BaseException:
            self._pending.pop(rq.index, None)
            rq.free()
            if buffer is not None:
                buffer.leave()
            raise
        self._next = start + length

    def _receive(self) -> None:
        while (rq := self._port.reap()) is None:
            self._port.wait()
        known = self._pending.get(rq.index)
        if known is None or known[0] is not rq:
            rq.free()
            return
        _, buffer, start = known
        result = rq.result
        if result < 0:
            self._error = self._error or result
        elif self._op is Op.READ:
            with memoryview(buffer) as data:
                self._view[start : start + len(data)] = data
        del self._pending[rq.index]
        rq.free()
        buffer.free()

    def _leave(self) -> None:
        """Give up what is under way: each piece frees itself when it is answered."""
        for rq, buffer, _ in self._pending.values():
            rq.free()
            buffer.leave()
        self._pending.clear()


assert PIECE_BYTES <= BUFFER_MAX_BYTES
