# SPDX-License-Identifier: Apache-2.0
"""Requests: one descriptor in shared memory, as a Python object.

A descriptor is in one place at a time (`request_place`): the owner fills it, the
receiver has it in flight, a server answers it, or it is gone.  Writing is allowed in
the first and third place only; that is checked here, because the other process trusts
nothing but also expects nobody to change a request under its hands.
"""

import errno as _errno
import warnings as _warnings

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from xseg._segment cimport (
    HANDLE_REQUEST,
    Buffer,
    count_handle,
    view_of,
)
from xseg.c.request cimport (
    XSEG_INLINE_BYTES,
    XSEG_NR_OBJECT_KINDS,
    xseg_request,
    xseg_request_complete,
    xseg_request_free,
)
from xseg.c.segment cimport xseg_heap_ptr, xseg_segment_request

from xseg.constants import ARG_NAME_LEN as _ARG_NAME_LEN
from xseg.constants import NAME_MAX as _NAME_MAX
from xseg.constants import NR_ARGS as _NR_ARGS
from xseg.constants import ObjectKind as _ObjectKind
from xseg.constants import RequestState as _RequestState
from xseg.errors import BusyError as _BusyError
from xseg.errors import ClosedError as _ClosedError
from xseg.errors import InvalidArgument as _InvalidArgument

cdef extern from "<errno.h>":
    enum:
        ECANCELED

cdef uint64_t LONGEST_NAME = _NAME_MAX
cdef unsigned int NAME_ARG = _ARG_NAME_LEN
cdef unsigned int NR_ARGS = _NR_ARGS


cdef _invalid(str text):
    return _InvalidArgument(_errno.EINVAL, text)


cdef class PortHandle:
    def __cinit__(self):
        self.port = NULL
        self.entered = False
        self.inflight = {}
        self.owned = set()
        self.serving = set()
        self.deferred = []

    cdef bint usable(self) noexcept:
        return self.port != NULL and self.segment.usable()

    cdef xseg_port *get(self) except NULL:
        if self.port == NULL:
            raise _ClosedError(_errno.EBADF, "the port is unbound")
        self.segment.get()
        if self.entered:
            raise _BusyError(_errno.EBUSY, "another thread is using the port")
        return self.port

    cdef xseg_port *enter(self) except NULL:
        """Begin a call that lets other threads run: they get BusyError meanwhile."""
        cdef xseg_port *port = self.get()
        self.entered = True
        return port

    cdef void leave(self) noexcept:
        self.entered = False
        while self.deferred:
            self.give_back(self.deferred.pop())

    cdef void give_back(self, uint32_t index) noexcept:
        """Free a request of ours, or answer one that nobody will answer any more."""
        cdef xseg_request *rq
        if not self.usable():
            return
        if self.entered:
            # A garbage collection on another thread; the port is not ours to touch.
            self.deferred.append(index)
            return
        rq = <xseg_request *>xseg_segment_request(self.segment.seg, index)
        if index in self.owned:
            self.owned.discard(index)
            xseg_request_free(self.port, rq)
        elif index in self.serving:
            self.serving.discard(index)
            xseg_request_complete(self.port, rq, -ECANCELED)


cdef Request new_request(PortHandle port, xseg_request *rq, request_place place):
    cdef Request self = Request.__new__(Request)
    self.port = port
    self.rq = rq
    self.index = rq.index
    self.place = place
    (port.owned if place == PLACE_OWNED else port.serving).add(self.index)
    count_handle(HANDLE_REQUEST, 1)
    return self


cdef class Request:
    """One thing a peer asks another.

    Made by `Port.request` (to send) or `Port.accept` (to serve).  Numbers that come
    from the other side are read as they are: check them before use.

    Attributes:
        port: The port it was made by.
        index: Its position in the segment's table.
    """

    def __cinit__(self):
        self.rq = NULL
        self.place = PLACE_GONE
        self.abandoned = False

    def __init__(self):
        raise TypeError("use Port.request or Port.accept")

    cdef xseg_request *get(self) except NULL:
        if self.place == PLACE_GONE:
            raise _ClosedError(_errno.EBADF, "the request is freed or answered")
        if not self.port.usable():
            raise _ClosedError(_errno.EBADF, "the request's port is unbound")
        return self.rq

    cdef xseg_request *put(self) except NULL:
        cdef xseg_request *rq = self.get()
        if self.place == PLACE_INFLIGHT:
            raise _BusyError(_errno.EBUSY, "the request is in flight")
        return rq

    cdef void lend(self) noexcept:
        if self.buffer is not None:
            self.buffer.lent += 1

    cdef void unlend(self) noexcept:
        if self.buffer is not None:
            self.buffer.returned()

    cdef void forget(self) noexcept:
        """The descriptor is no longer this object's."""
        if self.place != PLACE_GONE:
            self.place = PLACE_GONE
            count_handle(HANDLE_REQUEST, -1)
        self.buffer = None

    # ---- numbers -------------------------------------------------------------------

    @property
    def op(self):
        """What is asked, see `Op`; any number when it came from another peer."""
        return self.get().op

    @op.setter
    def op(self, uint32_t value):
        self.put().op = value

    @property
    def flags(self):
        """How, see `Flag`."""
        return self.get().flags

    @flags.setter
    def flags(self, uint32_t value):
        self.put().flags = value

    @property
    def handle(self):
        """Open volume, from OPEN's reply."""
        return self.get().handle

    @handle.setter
    def handle(self, uint64_t value):
        self.put().handle = value

    @property
    def offset(self):
        """In the volume or object [bytes]."""
        return self.get().offset

    @offset.setter
    def offset(self, uint64_t value):
        self.put().offset = value

    @property
    def size(self):
        """Asked [bytes]."""
        return self.get().size

    @size.setter
    def size(self, uint64_t value):
        self.put().size = value

    @property
    def result(self):
        """Bytes or count, or a negated errno; see `raise_for`."""
        return self.get().result

    @result.setter
    def result(self, int64_t value):
        self.put().result = value

    @property
    def src_port(self):
        """Port that asked."""
        return self.get().src_port

    @property
    def dst_port(self):
        """Port that serves."""
        return self.get().dst_port

    @property
    def state(self):
        """Where it is in its life, as `RequestState`."""
        if self.place == PLACE_GONE:
            return _RequestState.FREE
        return _RequestState(self.get().state)

    @property
    def data_len(self):
        """Bytes lent with the request."""
        return self.get().data_len

    def arg(self, unsigned int i):
        """Argument `i` of `NR_ARGS`; their meaning depends on the op."""
        if i >= NR_ARGS:
            raise _invalid(f"argument {i} of {NR_ARGS}")
        return self.get().arg[i]

    def set_arg(self, unsigned int i, uint64_t value):
        """Set argument `i` of `NR_ARGS`."""
        if i >= NR_ARGS:
            raise _invalid(f"argument {i} of {NR_ARGS}")
        self.put().arg[i] = value

    def ask(self, uint32_t op, uint64_t handle, uint64_t offset, uint64_t size,
            uint32_t flags=0):
        """Set in one step what a request to an open volume asks.

        Args:
            op: See `Op`.
            handle: From OPEN's reply.
            offset: In the volume [bytes].
            size: Asked [bytes].
            flags: See `Flag`.
        """
        cdef xseg_request *rq = self.put()
        rq.op = op
        rq.handle = handle
        rq.offset = offset
        rq.size = size
        rq.flags = flags

    # ---- names ---------------------------------------------------------------------

    @property
    def target(self):
        """Name of the volume: UTF-8 in the inline bytes, its length in an argument.

        Raises:
            InvalidArgument: Set: longer than `NAME_MAX` bytes.  Read: another peer
                gave a length out of range, or bytes that are not UTF-8.
        """
        cdef xseg_request *rq = self.get()
        cdef uint64_t length = rq.arg[NAME_ARG]
        cdef bytes raw
        if length > LONGEST_NAME:
            raise _invalid(
                f"name of {length} bytes, at most {LONGEST_NAME} are allowed"
            )
        raw = (<const char *>rq.inline_data)[:length]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _invalid(f"name {raw!r} is not UTF-8") from error

    @target.setter
    def target(self, str name not None):
        cdef xseg_request *rq = self.put()
        cdef bytes raw = name.encode("utf-8")
        cdef const char *start = raw
        if <uint64_t>len(raw) > LONGEST_NAME:
            raise _InvalidArgument(
                _errno.ENAMETOOLONG,
                f"name of {len(raw)} bytes, at most {LONGEST_NAME} are allowed",
            )
        memcpy(rq.inline_data, start, <size_t>len(raw))
        rq.arg[NAME_ARG] = <uint64_t>len(raw)

    @property
    def object(self):
        """The stored object it is about: (kind, 32 bytes of id)."""
        cdef xseg_request *rq = self.get()
        cdef uint32_t kind = rq.object.kind
        if kind >= <uint32_t>XSEG_NR_OBJECT_KINDS:
            raise _invalid(f"unknown kind of object {kind}")
        return _ObjectKind(kind), <bytes>(<const char *>rq.object.id)[:32]

    def set_object(self, uint32_t kind, id):
        """Name the stored object.

        Args:
            kind: An `ObjectKind`.
            id: Up to 32 bytes; the rest is filled with zeros.
        """
        cdef xseg_request *rq = self.put()
        cdef bytes raw = bytes(id)
        cdef const char *start
        if kind >= <uint32_t>XSEG_NR_OBJECT_KINDS or len(raw) > 32:
            raise _invalid(f"object of kind {kind} with an id of {len(raw)} bytes")
        raw = raw.ljust(32, b"\0")
        start = raw
        rq.object.kind = kind
        rq.object.reserved = 0
        memcpy(rq.object.id, start, 32)

    # ---- data ----------------------------------------------------------------------

    @property
    def inline(self):
        """The inline bytes, as a writable memoryview of `INLINE_BYTES`.

        It is the shared memory itself: use it only while the request is yours.
        """
        return view_of(
            self.port.segment, self.get().inline_data, XSEG_INLINE_BYTES, False
        )

    @property
    def data(self):
        """The buffer lent with it, or None; of an accepted request see `data_view`."""
        return self.buffer

    def set_data(self, Buffer buffer, start=0, length=None):
        """Lend a buffer, or a part of it, with the request.

        The request keeps the buffer until it is freed or another is set.

        Args:
            buffer: Of the same segment; None lends nothing.
            start: Where the part begins [bytes].
            length: Its length [bytes]; None for the rest of what was asked of `alloc`.

        Raises:
            InvalidArgument: Outside the buffer, or another segment's.
        """
        cdef xseg_request *rq = self.put()
        cdef Py_ssize_t first, size
        if self.place != PLACE_OWNED:
            raise _invalid("data is lent by the sender of a request")
        if buffer is None:
            self.buffer = None
            rq.data_off = rq.data_len = 0
            return
        if not buffer.live or buffer.left or buffer.segment is not self.port.segment:
            raise _invalid("the buffer is freed, or of another segment")
        first = start
        size = buffer.size - first if length is None else length
        if first < 0 or size < 0 or first > buffer.size - size:
            raise _invalid(
                f"{size} bytes from {first} do not lie in a buffer of {buffer.size}"
            )
        self.buffer = buffer
        rq.data_off = buffer.off + <uint64_t>first
        rq.data_len = <uint64_t>size

    def data_view(self, n=None):
        """The first bytes of the lent data, as a writable memoryview without a copy.

        This is how a server reaches the sender's buffer; what the other peer
        wrote into the descriptor is checked first.

        Args:
            n: How many bytes are needed; None for all that were lent.

        Raises:
            InvalidArgument: Less is lent, or it lies outside the heap.
        """
        cdef xseg_request *rq = self.get()
        cdef uint64_t off = rq.data_off
        cdef uint64_t lent = rq.data_len
        cdef uint64_t size = lent if n is None else n
        cdef void *start
        if size > lent:
            raise _invalid(f"{size} bytes of data are needed, {lent} are lent")
        if size == 0:
            return memoryview(bytearray())
        start = xseg_heap_ptr(self.port.segment.get(), off, size)
        if start == NULL:
            raise _invalid(f"{size} bytes of data at {off:#x} are outside the heap")
        return view_of(self.port.segment, start, <Py_ssize_t>size, False)

    # ---- end -----------------------------------------------------------------------

    def free(self):
        """Hand the descriptor back; twice is harmless.

        One in flight is given back when its reply arrives.  An accepted one that
        was not answered ends with ECANCELED at its sender.

        Raises:
            BusyError: Another thread is using the port.
        """
        if self.place == PLACE_GONE:
            return
        if not self.port.usable():
            self.forget()
            return
        if self.place == PLACE_INFLIGHT:
            self.abandoned = True
            return
        self.port.get()
        self.port.give_back(self.index)
        self.forget()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.free()

    def __del__(self):
        cdef bint leaked
        if self.place == PLACE_GONE:
            return
        leaked = self.port.usable() and not self.abandoned
        self.port.give_back(self.index)
        self.forget()
        if leaked:
            _warnings.warn(
                f"request {self.index} was neither freed nor answered",
                ResourceWarning,
                source=self,
            )

    def __repr__(self):
        if self.place == PLACE_GONE:
            return f"<Request {self.index} gone>"
        place = ("owned", "in flight", "serving")[<int>self.place]
        return f"<Request {self.index} {place}>"
