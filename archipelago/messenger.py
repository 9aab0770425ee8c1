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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from archipelago.errors import (
    ArchipelagoError,
    BackendUnavailable,
    NotAnswering,
    NotRunning,
)
from xseg import Port, Request, Segment
from xseg.constants import (
    NR_ARGS,
    PORT_ANY,
    PORT_BLOCKERB,
    PORT_BLOCKERM,
    PORT_CONTROL,
    PORT_MAPPERD,
    Op,
)
from xseg.errors import (
    BusyError,
    PeerDied,
    PortUnbound,
    SegmentFull,
    TimedOut,
    WouldBlock,
    XsegError,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from archipelago.ids import ObjectId

__all__ = ["Call", "Messenger", "Reply", "SerialMessenger"]

#: First and longest pause between two tries to reach a peer that restarts [s].
_RETRY_FIRST = 0.001
_RETRY_MOST = 0.1
#: Which peer serves a port, for people; all else is vlmcd's.
_PEERS = {
    PORT_BLOCKERB: "blockerb",
    PORT_BLOCKERM: "blockerm",
    PORT_MAPPERD: "mapperd",
    PORT_CONTROL: "mapperd",
}
#: Most requests of one `Messenger.send_many` under way.
_DEPTH = 16
#: What may be done again when nobody knows whether a peer that died had done it.
_REPEATABLE = frozenset({Op.PING, Op.INFO, Op.LIST, Op.USAGE, Op.OPEN, Op.CLOSE})


#: How long a refusal or a silence lasts before it is looked into, and between two
#: looks [s].  A peer that died is back sooner, most times.
_LOOK_FIRST = 0.5
_LOOK_NEXT = 5.0


class Explains(Protocol):
    """Says why a peer gives no answer (`archipelago.silence`)."""

    def of_stopped(self, dst: int) -> ArchipelagoError | None:
        """The error if a peer was stopped that a request to `dst` needs."""

    def of_hung(self, dst: int) -> ArchipelagoError | None:
        """The error if a peer hangs that a request to `dst` needs."""


@dataclass(frozen=True)
class Call:
    """One request, as data.

    Attributes:
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
        take: says from the answered request and its result how many bytes of the
            buffer to return [bytes].
    """

    dst: int
    op: Op
    name: str | None = None
    target: ObjectId | None = None
    offset: int = 0
    size: int | None = None
    data: ReadableBuffer = b""
    room: int = 0
    flags: int = 0
    handle: int = 0
    args: Sequence[int] = ()
    inline: bytes = b""
    take: Callable[[Request, int], int] | None = None


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


def _unbind(messenger: weakref.ref[Messenger], port: Port) -> None:
    """Unbind the port of a thread that has ended."""
    alive = messenger()
    if alive is not None:
        alive._unbind(port)


class Messenger:
    """Thread-safe sender of requests.

    Args:
        segment: attached segment; must stay attached until `close`.
        role: name of the ports, for status.
        patience: how long to try again while nobody is bound to the receiver's port
            [s]; a peer that is being restarted comes back within that.
        persistent: try again, too, what a peer that stops had not begun, and what one
            that died may have done, if that does no harm.
        explains: finds out why a peer gives no answer; None waits for an answer as long
            as it takes.
    """

    def __init__(
        self,
        segment: Segment,
        role: str,
        patience: float = 5.0,
        *,
        persistent: bool = False,
        explains: Explains | None = None,
    ) -> None:
        self.segment = segment
        self.role = role
        self.patience = patience
        self._persistent = persistent
        self._explains = explains
        self._abandoned: list[_Flight] = []
        self._local = threading.local()
        #: Attaches the segment that the instance has now; None: it keeps its first.
        self.attach: Callable[[], Segment] | None = None
        self._joined: list[Segment] = []
        self._left: list[threading.local] = []
        self._lock = threading.Lock()
        self._ports: dict[int, Port] = {}
        self._closed = False

    @property
    def port(self) -> Port:
        """The calling thread's port."""
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            port = self.bind(self.role)
            slot = _Slot(port)
            with self._lock:
                self._ports[id(port)] = port
            # It holds no messenger: the thread, and with it the slot, may outlive that.
            finalizer = weakref.finalize(slot, _unbind, weakref.ref(self), port)
            finalizer.atexit = False
            self._local.slot = slot
        return slot.port

    def bind(self, role: str) -> Port:
        """Bind a port of the caller's own; waits while other clients have all of them.

        Args:
            role: name of the port, for status.

        Raises:
            NotRunning: the connection is closed.
            BackendUnavailable: none has been free for `patience`.
        """
        started = time.monotonic()
        while not self._closed:
            try:
                return self.segment.bind(PORT_ANY, role)
            except SegmentFull as error:
                if time.monotonic() - started >= self.patience:
                    raise BackendUnavailable(
                        f"{error.strerror}: end some clients, or raise segment.ports"
                    ) from None
            time.sleep(_RETRY_MOST)
        raise NotRunning("the connection is closed: connect again")

    def _moved(self) -> bool:
        """Go to the instance's new segment, if it has made one."""
        if self.attach is None or self._closed:
            return False
        try:
            fresh = self.attach()
        except XsegError:
            return False  # there is none: the instance is stopped, or starts
        with self._lock:
            if fresh.statistics().uuid == self.segment.statistics().uuid:
                fresh.close()
                return False
            # Threads that still wait in the old one keep their ports until `close`.
            self._left.append(self._local)
            self._local = threading.local()
            self._joined.append(fresh)
            self.segment = fresh
        return True

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
        self._free_abandoned()
        for segment in self._joined:
            segment.close()

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
        """Send one request and wait for its answer.  See `Call` for the arguments.

        Returns:
            The reply; a negative result is the caller's to judge.

        Raises:
            NotRunning: no peer is bound to `dst`, not even after `patience`; or a peer
                that is needed was stopped.
            NotAnswering: a peer that is needed hangs.
            BackendUnavailable: the segment has had no room for the request as long.
        """
        return self.send(
            Call(
                dst,
                op,
                name=name,
                target=target,
                offset=offset,
                size=size,
                data=data,
                room=room,
                flags=flags,
                handle=handle,
                args=args,
                inline=inline,
                take=take,
            )
        )

    def send(self, call: Call) -> Reply:
        """Send one request and wait for its answer; as `call`."""
        return self._send(call)

    def send_many(self, calls: Iterable[Call]) -> list[Reply]:
        """Send many requests, several of them under way at once.

        They are answered in any order, so none may depend on another.

        Returns:
            The replies in the order of the requests.
        """
        return self._send_many(calls)

    def _send(self, call: Call) -> Reply:
        pause = _RETRY_FIRST
        started = time.monotonic()
        look = started + _LOOK_FIRST
        while True:
            port = self.port
            flight = None
            try:
                flight = _Flight(self.segment, port, call)
                reply = flight.land(self._await(port, flight.request, call.dst))
                if not self._unserved(call, reply.result):
                    return reply
                refused: OSError | None = None
            except (PortUnbound, SegmentFull, WouldBlock) as error:
                refused = error
            except PeerDied as error:
                # No supervisor ends what it served: the segment is not in use any more.
                if call.op not in _REPEATABLE or not self._moved():
                    raise self._gave_up(call, None) from error
                continue
            finally:
                if flight is not None:
                    self._release(flight)
            if self._explains is not None and time.monotonic() >= look:
                why = self._explains.of_stopped(call.dst)
                if why is not None:
                    raise why
                look = time.monotonic() + _LOOK_NEXT
            if time.monotonic() - started >= self.patience:
                raise self._gave_up(call, refused)
            if self._moved():
                continue
            time.sleep(pause)
            pause = min(2 * pause, _RETRY_MOST)

    def _await(self, port: Port, request: Request, dst: int) -> int:
        """Send a request and wait for its result, or for the reason why there is none.

        Raises:
            NotRunning, NotAnswering: the reason; the request stays in flight.
            XsegError: it could not be sent.
        """
        if self._explains is None:
            return port.call(request, dst)
        sent = time.monotonic()
        try:
            return port.call(request, dst, _LOOK_FIRST)
        except TimedOut:
            pass
        while True:
            answered = self._next_reply(port, dst, sent)
            if answered.index == request.index:
                return answered.result

    def _next_reply(self, port: Port, dst: int, since: float) -> Request:
        """Wait for a reply to the port, or for the reason why there is none.

        Args:
            port: the calling thread's.
            dst: port of the peer that is asked.
            since: when it was asked [s].

        Raises:
            NotRunning, NotAnswering: the reason; all requests stay in flight.
        """
        look = since + _LOOK_FIRST
        while True:
            rq = port.reap()
            if rq is not None:
                return rq
            if self._explains is None:
                port.wait()
                continue
            left = look - time.monotonic()
            if left > 0:
                port.wait(left)
                continue
            why = self._explains.of_stopped(dst)
            if why is None and time.monotonic() - since >= self.patience:
                why = self._explains.of_hung(dst)
            if why is not None:
                raise why
            look = time.monotonic() + _LOOK_NEXT

    def _release(self, flight: _Flight) -> None:
        """Give a flight's memory back, now or when its reply has come."""
        try:
            flight.free()
        except BusyError:
            with self._lock:
                self._abandoned.append(flight)

    def _free_abandoned(self) -> None:
        """Give back what was left in flight; its port is unbound."""
        with self._lock:
            flights, self._abandoned = self._abandoned, []
        for flight in flights:
            flight.free()

    def _unserved(self, call: Call, result: int) -> bool:
        """True if the request was not served, or may be served once more."""
        if result == -errno.EPIPE or not self._persistent:
            return result == -errno.EPIPE
        if result == -errno.EOWNERDEAD:
            return call.op in _REPEATABLE
        return result == -errno.ECANCELED

    def _gave_up(self, call: Call, refused: OSError | None) -> ArchipelagoError:
        if refused is None or isinstance(refused, PortUnbound):
            peer = _PEERS.get(call.dst, "vlmcd")
            return NotRunning(
                f'{peer} does not run: start the instance with "archipelago start", or '
                f'"archipelago start {peer}" if only that was stopped'
            )
        from archipelago.room import no_room

        return no_room(self.segment.name)

    def _send_many(self, calls: Iterable[Call]) -> list[Reply]:
        todo = list(calls)
        replies: dict[int, Reply] = {}
        port = self.port
        #: by index of the request: which call it is
        under_way: dict[int, tuple[int, _Flight]] = {}
        next_call = 0
        try:
            while next_call < len(todo) or under_way:
                while next_call < len(todo) and len(under_way) < _DEPTH:
                    flight = _Flight(self.segment, port, todo[next_call])
                    try:
                        port.submit(flight.request, todo[next_call].dst)
                    except BaseException:
                        flight.free()
                        raise
                    under_way[flight.request.index] = next_call, flight
                    next_call += 1
                self._land_one(port, under_way, replies)
        except (PortUnbound, SegmentFull, WouldBlock):
            pass  # the patient way, below
        except (NotRunning, NotAnswering):
            for _, flight in under_way.values():
                self._release(flight)
            under_way.clear()
            raise
        finally:
            while under_way:
                self._land_one(port, under_way, replies)
        return [
            replies[i]
            if i in replies and not self._unserved(call, replies[i].result)
            else self._send(call)
            for i, call in enumerate(todo)
        ]

    def _land_one(
        self,
        port: Port,
        under_way: dict[int, tuple[int, _Flight]],
        replies: dict[int, Reply],
    ) -> None:
        """Take one reply.

        Raises:
            NotRunning, NotAnswering: the reason why there is none; all stay in flight.
        """
        dst = next(iter(under_way.values()))[1].dst
        asked = time.monotonic()
        while (rq := self._next_reply(port, dst, asked)).index not in under_way:
            pass  # of a call that was given up
        number, flight = under_way.pop(rq.index)
        try:
            replies[number] = flight.land(rq.result)
        finally:
            flight.free()


class _Flight:
    """A request that is filled from a call, with its buffer."""

    def __init__(self, segment: Segment, port: Port, call: Call) -> None:
        view = memoryview(call.data).cast("B")
        self._call = call
        self.dst = call.dst
        self._length = max(len(view), call.room)
        self._buffer = segment.alloc(self._length) if self._length else None
        try:
            self.request = port.request()
        except BaseException:
            if self._buffer is not None:
                self._buffer.free()
            raise
        try:
            self._fill(view)
        except BaseException:
            self.free()
            raise

    def _fill(self, view: memoryview) -> None:
        rq, call = self.request, self._call
        rq.op = call.op
        rq.offset = call.offset
        rq.size = (len(view) or call.room) if call.size is None else call.size
        rq.flags = call.flags
        rq.handle = call.handle
        for index, value in enumerate(call.args):
            rq.set_arg(index, value)
        if call.name is not None:
            rq.target = call.name
        if call.inline:
            rq.inline[: len(call.inline)] = call.inline
        if call.target is not None:
            rq.set_object(call.target.kind, call.target.id)
        if self._buffer is not None:
            with memoryview(self._buffer) as whole:
                whole[: len(view)] = view
            rq.set_data(self._buffer, 0, self._length)

    def land(self, result: int) -> Reply:
        """Copy out what came back."""
        rq = self.request
        taken = b""
        if self._call.take is not None and self._buffer is not None:
            wanted = max(0, min(self._call.take(rq, result), self._length))
            with memoryview(self._buffer) as whole:
                taken = bytes(whole[:wanted])
        return Reply(
            result,
            taken,
            bytes(rq.inline),
            tuple(rq.arg(index) for index in range(NR_ARGS)),
            rq.handle,
        )

    def free(self) -> None:
        """Give request and buffer back."""
        self.request.free()
        if self._buffer is not None:
            self._buffer.free()


class SerialMessenger(Messenger):
    """A messenger with one port that all threads share, one call after another.

    For what must come from one port for as long as it lasts: a volume belongs to the
    port that opened it.
    """

    def __init__(
        self,
        segment: Segment,
        role: str,
        patience: float = 5.0,
        *,
        persistent: bool = False,
        explains: Explains | None = None,
    ) -> None:
        super().__init__(
            segment, role, patience, persistent=persistent, explains=explains
        )
        self._turn = threading.Lock()
        self._only: Port | None = None

    @property
    def port(self) -> Port:
        """The one port."""
        if self._closed:
            raise NotRunning("the connection is closed: connect again")
        if self._only is None:
            self._only = self.bind(self.role)
        return self._only

    def _moved(self) -> bool:
        """As `Messenger._moved`; the port in the old segment stays until `close`."""
        moved = super()._moved()
        if moved and self._only is not None:
            self._ports[id(self._only)] = self._only
            self._only = None
        return moved

    def send(self, call: Call) -> Reply:
        """As `Messenger.send`, when it is the calling thread's turn."""
        with self._turn:
            return self._send(call)

    def send_many(self, calls: Iterable[Call]) -> list[Reply]:
        """As `Messenger.send_many`, when it is the calling thread's turn."""
        with self._turn:
            return self._send_many(calls)

    def close(self) -> None:
        """Unbind the port."""
        with self._turn:
            self._closed = True
            if self._only is not None:
                self._only.unbind()
                self._only = None
            super().close()
