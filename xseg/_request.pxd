# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t

from xseg._segment cimport Buffer, Segment
from xseg.c.port cimport xseg_port
from xseg.c.request cimport xseg_request

cdef enum request_place:
    PLACE_OWNED     # ours to fill, submit or free
    PLACE_INFLIGHT  # sent; the receiver's until its reply is taken
    PLACE_SERVING   # accepted; ours to answer
    PLACE_GONE      # freed or answered


cdef class PortHandle:
    """What requests need of their port; `Port` builds on it."""

    cdef xseg_port *port
    cdef readonly Segment segment
    cdef bint entered           # a thread is inside a call that waits
    cdef dict inflight          # index -> Request
    cdef set owned              # indices of requests to free
    cdef set serving            # indices of requests to answer
    cdef list deferred          # indices dropped while `entered`

    cdef bint usable(self) noexcept
    cdef xseg_port *get(self) except NULL
    cdef xseg_port *enter(self) except NULL
    cdef void leave(self) noexcept
    cdef void give_back(self, uint32_t index) noexcept


cdef class Request:
    cdef readonly PortHandle port
    cdef xseg_request *rq
    cdef readonly uint32_t index
    cdef request_place place
    cdef bint abandoned         # freed by its user while in flight
    cdef Buffer buffer
    cdef object __weakref__

    cdef xseg_request *get(self) except NULL
    cdef xseg_request *put(self) except NULL
    cdef void lend(self) noexcept
    cdef void unlend(self) noexcept
    cdef void forget(self) noexcept


cdef Request new_request(PortHandle port, xseg_request *rq, request_place place)
