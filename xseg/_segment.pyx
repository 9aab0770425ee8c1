# SPDX-License-Identifier: Apache-2.0
"""Segments and buffers: shared memory as Python objects.

Invariants:
- The mapping stays while any memoryview points into it: `Segment.exports` counts them
  and `close` refuses.
- A buffer is freed once, by the process that took it: never in a child after fork, and
  never while a request in flight carries it.
"""

import errno as _errno
import os as _os
import warnings as _warnings
import weakref as _weakref

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int64_t, uint64_t
from posix.types cimport uid_t

from xseg._errors cimport check
from xseg._stats cimport port_statistics, request_infos, segment_statistics
from xseg.c.buffer cimport xseg_buffer_alloc, xseg_buffer_free
from xseg.c.check cimport xseg_check
from xseg.c.segment cimport (
    gid_t,
    xseg_heap_ptr,
    xseg_reap,
    xseg_reap_result,
    xseg_segment_attach_of,
    xseg_segment_create,
    xseg_segment_destroy,
    xseg_segment_detach,
    xseg_segment_options,
)

from xseg.constants import PORT_ANY as _PORT_ANY
from xseg.errors import BusyError as _BusyError
from xseg.errors import ClosedError as _ClosedError
from xseg.errors import InvalidArgument as _InvalidArgument
from xseg.errors import NotPermitted as _NotPermitted
from xseg.statistics import ReapResult as _ReapResult
from xseg.trust import distrust

cdef long _handles[5]
cdef unsigned long _forks = 0


def _after_fork_in_child():
    global _forks
    _forks += 1


_os.register_at_fork(after_in_child=_after_fork_in_child)


cdef void count_handle(handle_kind kind, int change) noexcept:
    _handles[<int>kind] += change


def live_handles():
    """Count the handles of this process that are open now.

    Returns:
        ``{"segments": n, "buffers": n, "ports": n, "requests": n, "natives": n}``.
    """
    return {
        "segments": _handles[<int>HANDLE_SEGMENT],
        "buffers": _handles[<int>HANDLE_BUFFER],
        "ports": _handles[<int>HANDLE_PORT],
        "requests": _handles[<int>HANDLE_REQUEST],
        "natives": _handles[<int>HANDLE_NATIVE],
    }


cdef bytes _segment_name(str name):
    cdef bytes raw = name.encode("utf-8")
    if b"\0" in raw:
        raise _InvalidArgument(_errno.EINVAL, f"segment name {name!r} contains NUL")
    return raw


cdef void _note_finding(void *found, const char *text) noexcept with gil:
    (<list>found).append(text.decode("ascii", "replace"))


cdef Segment _wrap(xseg_segment *seg, str name):
    cdef Segment self = Segment.__new__(Segment)
    self.seg = seg
    self.name = name
    count_handle(HANDLE_SEGMENT, 1)
    return self


cdef class Segment:
    """This process's attachment to a named piece of shared memory.

    Made by `Segment.create` or `Segment.attach`.  May be used by several threads; not
    after a fork: the child attaches anew.

    Attributes:
        name: The name in /dev/shm.
    """

    def __cinit__(self):
        self.seg = NULL
        self.exports = 0
        self.buffers = set()
        self.ports_open = _weakref.WeakSet()
        self.generation = _forks

    def __init__(self):
        raise TypeError("use Segment.create or Segment.attach")

    @staticmethod
    def create(
        str name not None, *, ports=0, requests=0, heap_bytes=0, mode=0o660, gid=-1
    ):
        """Create a segment and attach to it.

        Args:
            name: 1 to 200 characters of ``[A-Za-z0-9._-]``, no leading dot.
            ports: Port slots, 16 to 4096; 0 for the default, 1024.
            requests: Descriptors, a power of two, 64 to 65536; 0 for 8192.
            heap_bytes: Room for buffers, a multiple of 4 MiB from 16 MiB to 64 GiB
                [bytes]; 0 for 128 MiB.  All of it is allocated now.
            mode: File mode.
            gid: Group that owns it; -1 leaves the process's.

        Raises:
            AlreadyExists: The name is taken.
            InvalidArgument: A bad name or size.
            NoSpace: /dev/shm cannot hold it.
        """
        cdef xseg_segment_options options
        cdef bytes raw = _segment_name(name)
        cdef const char *c_name = raw
        cdef xseg_segment *seg = NULL
        cdef int rc
        try:
            options.nr_ports = ports
            options.nr_requests = requests
            options.heap_bytes = heap_bytes
            options.mode = mode
            options.gid = <gid_t>-1 if gid == -1 else <gid_t>gid
        except OverflowError as error:
            raise _InvalidArgument(
                _errno.EINVAL, f"create segment {name}: a size is out of range"
            ) from error
        with nogil:
            rc = xseg_segment_create(c_name, &options, &seg)
        check(rc, f"create segment {name}")
        return _wrap(seg, name)

    @staticmethod
    def attach(str name not None, *, owner=None):
        """Attach to an existing segment of root's or of this user's.

        Args:
            name: The name in /dev/shm.
            owner: Number of one more user whose segment is trusted.

        Raises:
            NotFound: No such segment.
            NotPermitted: Another user made it, or could have: it is not used.
            FormatMismatch: Made by a version this build does not speak.
            DataCorrupt: Its header contradicts itself.
        """
        cdef bytes raw = _segment_name(name)
        cdef const char *c_name = raw
        cdef xseg_segment *seg = NULL
        cdef int rc
        cdef uid_t trusted = <uid_t>(_os.geteuid() if owner is None else owner)
        with nogil:
            rc = xseg_segment_attach_of(c_name, trusted, &seg)
        if rc == -_errno.EPERM:
            raise _NotPermitted(
                _errno.EPERM, f"segment {name} is not trusted: {distrust(name)}"
            )
        check(rc, f"attach segment {name}")
        return _wrap(seg, name)

    @staticmethod
    def destroy(str name not None):
        """Remove the name; the memory goes with the last attachment.

        Raises:
            NotFound: No such segment.
        """
        cdef bytes raw = _segment_name(name)
        check(xseg_segment_destroy(raw), f"destroy segment {name}")

    cdef bint usable(self) noexcept:
        return self.seg != NULL and self.generation == _forks

    cdef xseg_segment *get(self) except NULL:
        if self.seg == NULL:
            raise _ClosedError(_errno.EBADF, f"segment {self.name} is closed")
        if self.generation != _forks:
            raise _ClosedError(
                _errno.EBADF,
                f"segment {self.name} was attached before fork: attach anew",
            )
        return self.seg

    @property
    def closed(self):
        """True once `close` has been called."""
        return self.seg == NULL

    def close(self):
        """Unbind the ports, free the buffers and unmap.  Closing twice is harmless.

        Raises:
            BufferError: Memoryviews of the segment are still in use.
            BusyError: A thread waits on one of its ports.
        """
        cdef uint64_t off
        if self.seg == NULL:
            return
        if self.generation == _forks:
            if self.exports:
                raise BufferError(
                    f"segment {self.name}: {self.exports} memoryviews are in use"
                )
            for port in list(self.ports_open):
                port.close()
            for off in self.buffers:
                xseg_buffer_free(self.seg, off)
                count_handle(HANDLE_BUFFER, -1)
            self.buffers.clear()
            xseg_segment_detach(self.seg)
        # In a child after fork the mapping is the parent's to take down: it stays.
        self.seg = NULL
        count_handle(HANDLE_SEGMENT, -1)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __del__(self):
        if self.seg == NULL:
            return
        inherited = self.generation != _forks
        try:
            self.close()
        finally:
            if not inherited:
                _warnings.warn(
                    f"unclosed segment {self.name}", ResourceWarning, source=self
                )

    def __repr__(self):
        state = "closed" if self.seg == NULL else "attached"
        return f"<Segment {self.name!r} {state}>"

    def bind(self, port=_PORT_ANY, role="client"):
        """Bind a port.

        Args:
            port: A well-known number, or PORT_ANY for a free dynamic one.
            role: 1 to 31 bytes; shown by status.

        Raises:
            BusyError: A living process has that port.
            SegmentFull: No dynamic port is free.
            InvalidArgument: A number outside the segment, or a bad role.
        """
        from xseg._port import Port

        return Port(self, port, role)

    def alloc(self, size):
        """Take a buffer of at least `size` bytes from the heap.

        Args:
            size: 1 to BUFFER_MAX_BYTES [bytes].

        Returns:
            A `Buffer` with whatever bytes were there before.

        Raises:
            SegmentFull: No buffer of that size is free.
            InvalidArgument: A size out of range.
        """
        cdef xseg_segment *seg = self.get()
        cdef uint64_t off = 0
        cdef uint64_t wanted
        cdef int64_t room
        cdef Buffer buffer
        try:
            wanted = size
        except OverflowError as error:
            raise _InvalidArgument(
                _errno.EINVAL, f"alloc of {size} bytes: out of range"
            ) from error
        room = xseg_buffer_alloc(seg, wanted, &off)
        if room < 0:
            check(room, f"alloc of {wanted} bytes in segment {self.name}")
        buffer = Buffer.__new__(Buffer)
        buffer.segment = self
        buffer.off = off
        buffer.room = <uint64_t>room
        buffer.size = <Py_ssize_t>wanted
        buffer.live = True
        self.buffers.add(off)
        count_handle(HANDLE_BUFFER, 1)
        return buffer

    def statistics(self):
        """Sizes and use of the segment, as `SegmentStatistics`."""
        return segment_statistics(self.get(), self.name)

    def ports(self):
        """Every port that is not free, as a list of `PortStatistics`."""
        return port_statistics(self.get())

    def requests(self):
        """Every request that is not free, as a list of `RequestInfo`."""
        return request_infos(self.get())

    def check(self):
        """Look for what only a broken process can have written (``xseg/check.h``).

        Returns:
            One line for each thing that is wrong; empty for a sound segment.
        """
        cdef list found = []
        xseg_check(self.get(), _note_finding, <void *>found)
        return found

    def reap(self):
        """Reclaim what processes held that are proven dead.

        Requests they were serving end with EOWNERDEAD at their senders.  For the one
        process that looks after the segment: peers and clients reap nobody.

        Returns:
            `ReapResult`; all zero if there was nothing, or another process does it now.
        """
        cdef xseg_segment *seg = self.get()
        cdef xseg_reap_result result
        cdef int rc
        self.exports += 1  # nobody unmaps meanwhile
        with nogil:
            result.ports = result.requests = result.buffers = 0
            rc = xseg_reap(seg, &result)
        self.exports -= 1
        check(rc, f"reap segment {self.name}")
        return _ReapResult(result.ports, result.requests, result.buffers)


cdef class Buffer:
    """A piece of the segment's heap, page aligned; supports the buffer protocol.

    ``memoryview(buffer)`` is the shared memory itself, writable, of the size that was
    asked for.  Freed by `free`, by ``with``, or with its segment.
    """

    def __cinit__(self):
        self.live = False
        self.left = False
        self.exports = 0
        self.lent = 0

    def __init__(self):
        raise TypeError("use Segment.alloc")

    @property
    def offset(self):
        """Where it starts in the segment [bytes]."""
        return self.off

    @property
    def capacity(self):
        """What the heap gave, at least the size asked [bytes]."""
        return self.room

    @property
    def closed(self):
        """True once it is freed."""
        return self.left or not (self.live and self.segment.usable())

    def __len__(self):
        return self.size

    def __repr__(self):
        state = "freed" if self.closed else f"at {self.off:#x}"
        return f"<Buffer of {self.size} bytes {state}>"

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef void *start
        if not self.live or self.left:
            raise _ClosedError(_errno.EBADF, "the buffer is freed")
        start = xseg_heap_ptr(self.segment.get(), self.off, <uint64_t>self.size)
        if start == NULL:
            raise _ClosedError(_errno.EBADF, "the buffer is not in the heap")
        PyBuffer_FillInfo(view, self, start, self.size, 0, flags)
        self.exports += 1
        self.segment.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1
        self.segment.exports -= 1

    cdef void disown(self) noexcept:
        """Leave the memory to the heap table: a request still carries it."""
        if self.live:
            self.live = False
            self.segment.buffers.discard(self.off)
            count_handle(HANDLE_BUFFER, -1)

    cdef void returned(self) noexcept:
        """A request in flight does not carry it any more."""
        self.lent -= 1
        if self.left and not self.lent and self.live and self.segment.usable():
            self.disown()
            xseg_buffer_free(self.segment.seg, self.off)

    def leave(self):
        """Give it back: now, or once no request in flight carries it any more.

        For a way out that cannot wait for the answer, such as Ctrl-C.

        Raises:
            BufferError: Memoryviews of it are still in use.
        """
        if self.live and self.lent and self.segment.usable():
            if self.exports:
                raise BufferError(f"buffer: {self.exports} memoryviews are in use")
            self.left = True
        else:
            self.free()

    def free(self):
        """Give it back.  Freeing twice is harmless.

        Raises:
            BufferError: Memoryviews of it are still in use.
            BusyError: A request in flight carries it.
        """
        if not self.live or self.left:
            return
        if self.segment.usable():
            if self.exports:
                raise BufferError(f"buffer: {self.exports} memoryviews are in use")
            if self.lent:
                raise _BusyError(_errno.EBUSY, "a request in flight carries the buffer")
            self.live = False
            self.segment.buffers.discard(self.off)
            count_handle(HANDLE_BUFFER, -1)
            check(
                xseg_buffer_free(self.segment.seg, self.off),
                f"free buffer at {self.off:#x}",
            )
        self.live = False

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.free()
        else:
            self.leave()

    def __del__(self):
        if not self.live or self.left or not self.segment.usable():
            return
        try:
            self.free()
        finally:
            _warnings.warn(
                f"buffer of {self.size} bytes was not freed",
                ResourceWarning,
                source=self,
            )


cdef class View:
    """Memory of a segment that belongs to no `Buffer`; keeps the mapping."""

    def __getbuffer__(self, Py_buffer *view, int flags):
        self.segment.get()
        PyBuffer_FillInfo(view, self, self.start, self.size, self.readonly, flags)
        self.segment.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.segment.exports -= 1


cdef object view_of(Segment segment, void *start, Py_ssize_t size, bint readonly):
    """A memoryview of `size` bytes of the mapping."""
    cdef View view = View.__new__(View)
    view.segment = segment
    view.start = start
    view.size = size
    view.readonly = readonly
    return memoryview(view)
