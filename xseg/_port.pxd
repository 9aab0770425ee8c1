# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t, uint64_t

from xseg._request cimport PortHandle, Request
from xseg.c.request cimport xseg_request


cdef class Port(PortHandle):
    cdef readonly uint32_t id
    cdef readonly str role
    cdef dict dead_since        # server port -> when it was first seen dead [ns]
    cdef object kept_requests   # deque: accepted while `call` waited for a reply
    cdef object kept_replies    # deque: taken while `call` waited for another
    cdef object __weakref__

    cdef int send(self, Request rq, uint32_t dst) except -1
    cdef Request taken(self, xseg_request *rq)
    cdef int pause(self, uint64_t deadline, uint64_t *looked) except -1
    cdef int look_for_dead(self) except -1
