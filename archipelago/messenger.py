# SPDX-License-Identifier: Apache-2.0
"""Send requests over the segment from any thread, each through a port of its own.

Used by clients and by the control half.  A port belongs to one thread
(``xseg/port.h``), so a thread binds one with its first request; it is unbound when the
thread has ended, or by `Messenger.close`, which must come after the last request.
"""

from __future__ import annotations

import errno
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archipelago.errors import NotRunning
from xseg import Port, Request, Segment
from xseg.constants import PORT_ANY, Op

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from archipelago.ids import ObjectId

__all__ = ["Messenger", "Reply", "SerialMessenger"]

#: First and longest pause between two tries to reach a peer that restarts [s].
_RETRY_FIRST = 0.001
_RETRY_MOST = 0.1


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        result: bytes or count, or -errno.
        data: bytes of the lent buffer that `Messenger.call` was asked to take.
        inline: all inline bytes.
        args: the numbered arguments.
        handle: of an OPEN.
    """

    result: int
    data: bytes
    inline: bytes
    args: tuple[int, ...]
    handle: int


class _Slot:
    """One thread's port; the last reference dies with the thread."""

    def __init__(self, port: Port) -> None:
        self.port = port


class Messenger:
    """Thread-safe sender of requests.

    Args:
        segment: attached segment; must stay attached until `close`.
        role: name of the ports, for status.
        patience: how long to try again while nobody is bound to the receiver's port
            [s]; a peer that is being restarted comes back within that.
    """

    def __init__(self, segment: Segment, role: str, patience: float = 5.0) -> None:
        self.segment = segment
        self.role = role
        self.patience = patience
        self._local = threading.local()
        self._lock = threading.Lock()
        self._ports: dict[int, Port] = {}
        self._closed = False

    @property
    def port(self) -> Port:
        """The calling thread's port."""
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            with self._lock:
                if self._closed:
                    raise NotRunning("the connection is closed: connect again")
                port = self.segment.bind(PORT_ANY, self.role)
                slot = _Slot(port)
                self._ports[id(port)] = port
            weakref.finalize(slot, self._unbind, port).atexit = False
            self._local.slot = slot
        return slot.port

    def _unbind(self, port: Port) -> None:
        with self._lock:
            known = self._ports.pop(id(port), None)
        if known is not None:
            known.unbind()

    def close(self) -> None:
        """Unbind all ports.  No request may be in flight in any thread."""
        with self._lock:
            self._closed = True
            ports = list(self._ports.values())
            self._ports.clear()
        for port in ports:
            port.unbind()

    def call(
        self,
        dst: int,
        op: Op,
        *,
        name: str | None = None,
        target: ObjectId | None = None,
        offset: int = 0,
        size: int | None = None,
        data: ReadableBuffer = b"",
        room: int = 0,
        flags: int = 0,
        handle: int = 0,
        args: Sequence[int] = (),
        inline: bytes = b"",
        take: Callable[[Request, int], int] | None = None,
    ) -> Reply:
        """Send one request and wait for its answer.

        Args:
            dst: port of the receiver.
            op: what is asked.
            name: name of a volume, sent inline.
            target: the stored object that is meant.
            offset: [bytes].
            size: [bytes]; None means the length of `data`, or `room` without data.
            data: bytes to send, copied into a buffer of the segment.
            room: least size of that buffer [bytes].
            flags: flags of the request.
            handle: open volume or map.
            args: numbered arguments.
            inline: bytes to send inline.
            take: says from the answered request and its result how many bytes of
                the buffer to return [bytes].

        Returns:
            The reply; a negative result is the caller's to judge.

        Raises:
            NotRunning: nobody is bound to `dst`, not even after `patience`.
        """
        pause = _RETRY_FIRST
        started = time.monotonic()
        view = memoryview(data).cast("B")
        length = max(len(view), room)
        while True:
            reply = self._call_once(
                dst,
                op,
                name=name,
                target=target,
                offset=offset,
                size=(len(view) or room) if size is None else size,
                view=view,
                length=length,
                flags=flags,
                handle=handle,
                args=args,
                inline=inline,
                take=take,
            )
            if reply is not None:
                return reply
            if time.monotonic() - started >= self.patience:
                raise NotRunning(
                    f"nobody serves port {dst} of segment {self.segment.name}: "
                    'start the instance with "archipelago start"'
                )
            time.sleep(pause)
            pause = min(2 * pause, _RETRY_MOST)

    def _call_once(
        self,
        dst: int,
        op: Op,
        *,
        name: str | None,
        target: ObjectId | None,
        offset: int,
        size: int,
        view: memoryview,
        length: int,
        flags: int,
        handle: int,
        args: Sequence[int],
        inline: bytes,
        take: Callable[[Request, int], int] | None,
    ) -> Reply | None:
        """Send it; None if nobody is bound to the receiver's port."""
        port = self.port
        buffer = self.segment.alloc(length) if length else None
        try:
            rq = port.request()
            try:
                rq.op = op
                rq.offset = offset
                rq.size = size
                rq.flags = flags
                rq.handle = handle
                for index, value in enumerate(args):
                    rq.set_arg(index, value)
                if name is not None:
                    rq.target = name
                if inline:
                    rq.inline[: len(inline)] = inline
                if target is not None:
                    rq.set_object(target.kind, target.id)
                if buffer is not None:
                    with memoryview(buffer) as whole:
                        whole[: len(view)] = view
                    rq.set_data(buffer, 0, length)
                try:
                    result = port.call(rq, dst)
                except OSError as error:
                    if error.errno == errno.EPIPE:
                        return None
                    raise
                if result == -errno.EPIPE:
                    return None
                taken = b""
                if take is not None and buffer is not None:
                    wanted = max(0, min(take(rq, result), length))
                    with memoryview(buffer) as whole:
                        taken = bytes(whole[:wanted])
                return Reply(
                    result,
                    taken,
                    bytes(rq.inline),
                    tuple(rq.arg(index) for index in range(5)),
                    rq.handle,
                )
            finally:
                rq.free()
        finally:
            if buffer is not None:
                buffer.free()


class SerialMessenger(Messenger):
    """A messenger with one port that all threads share, one call after another.

    For what must come from one port for as long as it lasts: a volume belongs to the
    port that opened it.
    """

    def __init__(self, segment: Segment, role: str, patience: float = 5.0) -> None:
        super().__init__(segment, role, patience)
        self._turn = threading.Lock()
        self._only: Port | None = None

    @property
    def port(self) -> Port:
        """The one port."""
        if self._closed:
            raise NotRunning("the connection is closed: connect again")
        if self._only is None:
            self._only = self.segment.bind(PORT_ANY, self.role)
        return self._only

    def call(self, dst: int, op: Op, **options: Any) -> Reply:
        """As `Messenger.call`, when it is the calling thread's turn."""
        with self._turn:
            return super().call(dst, op, **options)

    def close(self) -> None:
        """Unbind the port."""
        with self._turn:
            self._closed = True
            if self._only is not None:
                self._only.unbind()
                self._only = None
