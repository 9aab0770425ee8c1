# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint64_t

from xseg.c.segment cimport xseg_segment

cdef enum handle_kind:
    HANDLE_SEGMENT
    HANDLE_BUFFER
    HANDLE_PORT
    HANDLE_REQUEST
    HANDLE_NATIVE

cdef void count_handle(handle_kind kind, int change) noexcept


cdef class Segment:
    cdef xseg_segment *seg
    cdef readonly str name
    cdef Py_ssize_t exports     # views of the mapping that are in use
    cdef set buffers            # offsets of buffers to free
    cdef object ports_open      # weakref.WeakSet of Port
    cdef unsigned long generation
    cdef object __weakref__

    cdef bint usable(self) noexcept
    cdef xseg_segment *get(self) except NULL


cdef class Buffer:
    cdef readonly Segment segment
    cdef uint64_t off
    cdef uint64_t room
    cdef Py_ssize_t size
    cdef Py_ssize_t exports     # views of this buffer that are in use
    cdef Py_ssize_t lent        # requests in flight that carry it
    cdef bint live
    cdef bint left              # freed by its user while lent
    cdef object __weakref__

    cdef void disown(self) noexcept
    cdef void returned(self) noexcept


cdef class View:
    cdef Segment segment
    cdef void *start
    cdef Py_ssize_t size
    cdef bint readonly


cdef object view_of(Segment segment, void *start, Py_ssize_t size, bint readonly)
