# SPDX-License-Identifier: Apache-2.0
"""Ports: sending, serving and waiting.

A port belongs to one thread at a time.  Only the calls that wait let other threads run
(`enter` ... `leave`); everything else is one step under the interpreter's lock.

Waiting is cut into slices so that Ctrl-C is noticed, and so that a server that died is.
The supervisor reaps it, which ends the request with EOWNERDEAD; if nobody does, because
the supervisor is gone as well, the wait itself ends with PeerDied.
"""

import collections as _collections
import errno as _errno
import math as _math
import warnings as _warnings

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, EPIPE, ETIMEDOUT
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t

from xseg._errors cimport check
from xseg._request cimport (
    PLACE_INFLIGHT,
    PLACE_OWNED,
    PLACE_SERVING,
    PortHandle,
    Request,
    new_request,
)
from xseg._segment cimport HANDLE_PORT, Segment, count_handle
from xseg.c.port cimport (
    xseg_bell_arm,
    xseg_bell_disarm,
    xseg_bell_fd,
    xseg_port,
    xseg_port_bind,
    xseg_port_id,
    xseg_port_pending,
    xseg_port_reserve,
    xseg_port_share_bell,
    xseg_port_unbind,
    xseg_port_wait,
)
from xseg.c.request cimport (
    XSEG_RS_SERVING,
    xseg_port_accept,
    xseg_port_reap,
    xseg_request,
    xseg_request_alloc,
    xseg_request_complete,
    xseg_request_free,
    xseg_request_submit,
)
from xseg.c.process cimport XSEG_LIFE_DEAD
from xseg.c.segment cimport xseg_port_life

from xseg.constants import PORT_ANY as _PORT_ANY
from xseg.errors import InvalidArgument as _InvalidArgument
from xseg.errors import PeerDied as _PeerDied
from xseg.errors import SegmentFull as _SegmentFull

cdef extern from *:
    """
    #include <time.h>
    static inline uint64_t port_now_ns(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    """
    uint64_t now_ns "port_now_ns"() nogil

# How long a signal or a dead server may go unnoticed, and how long the supervisor may
# take to give back what a dead server held.
cdef enum:
    SLICE_NS = 100000000
    LOOK_NS = 500000000
cdef uint64_t ABANDON_NS = 10000000000


cdef uint64_t _deadline(timeout) except? 0:
    """The clock at which `timeout` [s] ends; UINT64_MAX for None."""
    cdef double seconds
    if timeout is None:
        return UINT64_MAX
    seconds = timeout
    if _math.isnan(seconds):
        raise _InvalidArgument(_errno.EINVAL, "a timeout cannot be NaN")
    if seconds > 1e9:
        return UINT64_MAX
    return now_ns() + <uint64_t>(max(seconds, 0.0) * 1e9)


cdef class Port(PortHandle):
    """Where requests arrive and replies come back; made by `Segment.bind`.

    One thread at a time: a call from a second thread while the first waits raises
    BusyError.

    Attributes:
        id: Its number.
        role: As given to `bind`.
        segment: Where it is.
    """

    def __cinit__(self, Segment segment not None, id, str role not None):
        cdef bytes raw = role.encode("utf-8")
        cdef xseg_port *port = NULL
        self.segment = segment
        self.role = role
        self.dead_since = {}
        self.kept_requests = _collections.deque()
        self.kept_replies = _collections.deque()
        if b"\0" in raw:
            raise _InvalidArgument(_errno.EINVAL, f"role {role!r} contains NUL")
        if not 0 <= id <= 0xFFFFFFFF:
            raise _InvalidArgument(_errno.EINVAL, f"no port can have number {id}")
        cdef int rc = xseg_port_bind(segment.get(), id, raw, &port)
        if rc == -_errno.ENOBUFS:
            raise _SegmentFull(
                _errno.ENOBUFS,
                f"all {segment.statistics().nr_ports} ports of segment {segment.name} "
                "are in use",
            )
        where = "a free port" if id == _PORT_ANY else f"port {id}"
        check(rc, f"bind {where} of segment {segment.name} as {role!r}")
        self.port = port
        self.id = xseg_port_id(port)
        segment.ports_open.add(self)
        count_handle(HANDLE_PORT, 1)

    # ---- sending -------------------------------------------------------------------

    def request(self):
        """Take a free request descriptor, zeroed.

        Raises:
            SegmentFull: Neither the port's reserve nor the segment has one.
        """
        cdef xseg_port *port = self.get()
        cdef xseg_request *rq = NULL
        cdef int rc = xseg_request_alloc(port, &rq)
        if rc < 0:
            check(rc, f"request of port {self.id}")
        return new_request(self, rq, PLACE_OWNED)

    def reserve(self, uint32_t n):
        """Keep `n` descriptors for this port alone, until it is unbound.

        Raises:
            SegmentFull: The segment has not that many free.
        """
        check(xseg_port_reserve(self.get(), n), f"reserve {n} requests")

    def submit(self, Request rq not None, uint32_t dst):
        """Send a filled request.  Its data is lent until the reply is reaped.

        Raises:
            PortUnbound: Nobody is bound to `dst`; the request stays the caller's.
            WouldBlock: The ring of `dst` is full; it stays the caller's.
            InvalidArgument: A port outside the segment, or not this port's request.
            BusyError: It is in flight already.
        """
        self.get()
        self.send(rq, dst)

    cdef int send(self, Request rq, uint32_t dst) except -1:
        cdef int rc
        rq.put()
        if rq.port is not self or rq.place != PLACE_OWNED:
            raise _InvalidArgument(_errno.EINVAL, "not a request this port may send")
        if rq.buffer is not None and not rq.buffer.live:
            raise _InvalidArgument(_errno.EINVAL, "the request's buffer is freed")
        rc = xseg_request_submit(self.port, rq.rq, dst)
        if rc < 0:
            check(rc, f"submit to port {dst}")
        rq.lend()
        rq.place = PLACE_INFLIGHT
        self.owned.discard(rq.index)
        self.inflight[rq.index] = rq
        return 0

    cdef Request taken(self, xseg_request *rq):
        """The object of a reply, its owner's again; None if its user gave it up."""
        cdef Request request = self.inflight.pop(rq.index, None)
        if request is None:
            xseg_request_free(self.port, rq)
            return None
        request.unlend()
        request.place = PLACE_OWNED
        self.owned.add(request.index)
        if request.abandoned:
            self.owned.discard(request.index)
            xseg_request_free(self.port, rq)
            request.forget()
            return None
        return request

    def reap(self):
        """Take the next reply, or None.  The request is the caller's again."""
        cdef xseg_port *port = self.get()
        cdef xseg_request *rq
        cdef Request request
        if self.kept_replies:
            return self.kept_replies.popleft()
        while True:
            rq = xseg_port_reap(port)
            if rq == NULL:
                return None
            request = self.taken(rq)
            if request is not None:
                return request

    def call(self, Request rq not None, uint32_t dst, timeout=None):
        """Send a request and wait for its reply.

        Replies to other requests and requests that arrive meanwhile are kept for `reap`
        and `accept`.  The interpreter's lock is released while waiting.

        Args:
            rq: A request of this port.
            dst: Port that serves it.
            timeout: At most so long [s]; None for ever.

        Returns:
            The request's result: bytes or count, or a negated errno (see `raise_for`).

        Raises:
            TimedOut: No reply in time.  The request stays in flight: its reply comes
                by `reap`, or `free` it and it goes when the reply comes.
            XsegError: It could not be sent, as from `submit`.
        """
        cdef xseg_port *port
        cdef xseg_request *wanted
        cdef xseg_request *reply
        cdef xseg_request *arrived
        cdef Request other
        cdef uint64_t looked = 0
        cdef uint64_t deadline = _deadline(timeout)
        cdef int64_t result
        cdef int rc

        self.get()
        self.send(rq, dst)
        wanted = rq.rq
        port = self.enter()
        try:
            while True:
                with nogil:
                    rc = _next(port, deadline, &reply, &arrived)
                if arrived != NULL:
                    self.kept_requests.append(
                        new_request(self, arrived, PLACE_SERVING)
                    )
                elif reply != NULL:
                    if reply == wanted:
                        result = wanted.result
                        self.taken(reply)
                        return result
                    other = self.taken(reply)
                    if other is not None:
                        self.kept_replies.append(other)
                elif rc != -ETIMEDOUT and rc != -EINTR:
                    check(rc, f"wait of port {self.id}")
                elif self.pause(deadline, &looked):
                    check(-ETIMEDOUT, f"call of port {dst}")
        finally:
            self.leave()

    # ---- serving -------------------------------------------------------------------

    def accept(self):
        """Take the next request sent here, or None.  Answer it by `complete`."""
        cdef xseg_port *port = self.get()
        cdef xseg_request *rq
        if self.kept_requests:
            return self.kept_requests.popleft()
        rq = xseg_port_accept(port)
        if rq == NULL:
            return None
        return new_request(self, rq, PLACE_SERVING)

    def complete(self, Request rq not None, int64_t result):
        """Answer an accepted request, which is then gone.

        Args:
            rq: From `accept` of this port.
            result: Bytes or count, or a negated errno.

        Returns:
            False if the sender is gone, so that nobody learns of it.
        """
        cdef xseg_port *port = self.get()
        cdef int rc
        rq.get()
        if rq.port is not self or rq.place != PLACE_SERVING:
            raise _InvalidArgument(_errno.EINVAL, "not a request this port serves")
        self.serving.discard(rq.index)
        rc = xseg_request_complete(port, rq.rq, result)
        rq.forget()
        if rc == -EPIPE:
            return False
        check(rc, f"complete request {rq.index}")
        return True

    # ---- waiting -------------------------------------------------------------------

    @property
    def pending(self):
        """True if a request or a reply is waiting to be taken."""
        cdef xseg_port *port = self.get()
        return bool(
            self.kept_requests or self.kept_replies or xseg_port_pending(port)
        )

    def wait(self, timeout=None):
        """Sleep until a request or a reply is there.

        Args:
            timeout: At most so long [s]; None for ever.

        Returns:
            True if something is there, False if the time is over.
        """
        cdef xseg_port *port = self.get()
        cdef xseg_request *reply
        cdef xseg_request *arrived
        cdef Request request
        cdef uint64_t looked = 0
        cdef uint64_t deadline = _deadline(timeout)
        cdef int rc

        if self.kept_requests or self.kept_replies:
            return True
        self.enter()
        try:
            while True:
                with nogil:
                    rc = _next(port, deadline, &reply, &arrived)
                if reply != NULL:
                    request = self.taken(reply)
                    if request is not None:
                        self.kept_replies.append(request)
                        return True
                elif arrived != NULL:
                    self.kept_requests.append(
                        new_request(self, arrived, PLACE_SERVING)
                    )
                    return True
                elif rc != -ETIMEDOUT and rc != -EINTR:
                    check(rc, f"wait of port {self.id}")
                elif self.pause(deadline, &looked):
                    return False
        finally:
            self.leave()

    cdef int pause(self, uint64_t deadline, uint64_t *looked) except -1:
        """Between two slices: signals, dead servers.  1 if the time is over."""
        cdef uint64_t now = now_ns()
        PyErr_CheckSignals()
        if now >= deadline:
            return 1
        if looked[0] == 0:
            looked[0] = now
        elif now - looked[0] >= LOOK_NS:
            looked[0] = now
            self.look_for_dead()
        return 0

    cdef int look_for_dead(self) except -1:
        """PeerDied if a process that serves a request of ours has long been dead."""
        cdef Request rq
        cdef uint64_t now = now_ns()
        cdef uint32_t dst
        cdef dict dead = {}
        if xseg_port_life(self.segment.seg, self.id) == XSEG_LIFE_DEAD:
            raise _PeerDied(
                _errno.EOWNERDEAD, f"port {self.id} is no longer this process's"
            )
        for rq in self.inflight.values():
            dst = rq.rq.dst_port
            # A port that was unbound has answered all: a request that still waits there
            # was lost.  Port 0 marks one whose data a third peer still works on.
            if dst in dead or dst == 0:
                continue
            if xseg_port_life(self.segment.seg, dst) == XSEG_LIFE_DEAD:
                dead[dst] = self.dead_since.get(dst, now)
        self.dead_since = dead
        for dst, since in dead.items():
            if now - <uint64_t>since >= ABANDON_NS:
                raise _PeerDied(
                    _errno.EOWNERDEAD,
                    f"the process that served port {dst} has died, and no supervisor "
                    "gives back what it held",
                )
        return 0

    # ---- sleeping in a loop ----------------------------------------------------------

    def fileno(self):
        """An eventfd of the port that is readable after a ring of the armed bell."""
        return check(xseg_bell_fd(self.get()), f"doorbell of port {self.id}")

    def arm(self):
        """Ask senders to ring; then look at `pending` once more before sleeping."""
        xseg_bell_arm(self.get())

    def disarm(self):
        """Awake: senders need not ring.  Drains the eventfd."""
        xseg_bell_disarm(self.get())

    def share_bell(self, Port bell not None):
        """Be woken through the doorbell of another port of the same thread."""
        xseg_port_share_bell(self.get(), bell.get())

    # ---- end -----------------------------------------------------------------------

    @property
    def closed(self):
        """True once it is unbound."""
        return not self.usable()

    def unbind(self):
        """Free the port; twice is harmless.

        What it accepted and did not answer ends with ECANCELED at the sender.  Buffers
        of its own requests that a peer serves at this moment stay with that peer: they
        come back when this process has ended and a survivor reaps.

        Raises:
            BusyError: A thread waits on it.
        """
        cdef xseg_request *reply
        cdef Request rq
        if self.port == NULL:
            return
        if not self.segment.usable():
            # After fork, or after the segment was closed: nothing of it is ours.
            self.port = NULL
            count_handle(HANDLE_PORT, -1)
            return
        self.get()
        while True:
            reply = xseg_port_reap(self.port)
            if reply == NULL:
                break
            self.taken(reply)
        for index in list(self.owned) + list(self.serving):
            self.give_back(index)
        self.kept_replies.clear()
        self.kept_requests.clear()
        self.segment.ports_open.discard(self)
        xseg_port_unbind(self.port)
        # What was not accepted yet has been withdrawn; the rest somebody still serves.
        for rq in list(self.inflight.values()):
            if (
                rq.buffer is not None
                and rq.rq.state == <uint32_t>XSEG_RS_SERVING
                and rq.rq.src_port == self.id
            ):
                rq.buffer.disown()
            rq.unlend()
            rq.forget()
        self.inflight.clear()
        self.port = NULL
        count_handle(HANDLE_PORT, -1)

    def close(self):
        """The same as `unbind`."""
        self.unbind()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.unbind()

    def __del__(self):
        if not self.usable():
            return
        try:
            self.unbind()
        finally:
            _warnings.warn(
                f"port {self.id} ({self.role}) was not unbound",
                ResourceWarning,
                source=self,
            )

    def __repr__(self):
        state = "bound" if self.usable() else "unbound"
        return f"<Port {self.id} {self.role!r} {state}>"


cdef uint64_t _slice(uint64_t deadline) noexcept nogil:
    """How long to sleep now [ns]."""
    cdef uint64_t now
    if deadline == UINT64_MAX:
        return SLICE_NS
    now = now_ns()
    if now >= deadline:
        return 0
    return min(deadline - now, <uint64_t>SLICE_NS)


cdef int _next(
    xseg_port *port,
    uint64_t deadline,
    xseg_request **reply,
    xseg_request **arrived,
) noexcept nogil:
    """Take the next reply or request, sleeping for one slice at most.

    It takes rather than looks: the library may ask for a scan of the table that finds
    nothing, and a caller that only reaps, or only accepts, would be told so for ever.

    Returns 0 with one of the two set; -ETIMEDOUT, -EINTR or the wait's error.
    """
    cdef int rc
    arrived[0] = NULL
    while True:
        reply[0] = xseg_port_reap(port)
        if reply[0] != NULL:
            return 0
        arrived[0] = xseg_port_accept(port)
        if arrived[0] != NULL:
            return 0
        rc = xseg_port_wait(port, _slice(deadline))
        if rc < 0:
            return rc
