# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from xseg.c.port cimport xseg_port

cdef extern from "xseg/request.h" nogil:
    enum:
        XSEG_INLINE_BYTES
        XSEG_NR_OPS
        XSEG_NR_OBJECT_KINDS
        XSEG_RS_FREE
        XSEG_RS_ALLOCATED
        XSEG_RS_SUBMITTED
        XSEG_RS_SERVING
        XSEG_RS_DONE

    struct xseg_object:
        uint32_t kind
        uint32_t reserved
        uint8_t id[32]

    struct xseg_request:
        uint32_t index
        uint32_t state
        uint32_t op
        uint32_t flags
        uint32_t src_port
        uint32_t dst_port
        uint32_t owner_pid
        uint64_t owner_start
        int64_t result
        uint64_t handle
        uint64_t offset
        uint64_t size
        uint64_t data_off
        uint64_t data_len
        uint64_t arg[5]
        uint64_t submitted_ns
        xseg_object object
        uint8_t inline_data[336]

    int xseg_request_alloc(xseg_port *port, xseg_request **out)
    void xseg_request_free(xseg_port *port, xseg_request *rq)
    int xseg_request_submit(xseg_port *port, xseg_request *rq, uint32_t dst_port)
    xseg_request *xseg_port_accept(xseg_port *port)
    int xseg_request_complete(xseg_port *port, xseg_request *rq, int64_t result)
    xseg_request *xseg_port_reap(xseg_port *port)
    const char *xseg_op_name(uint32_t op)
    const char *xseg_request_state_name(uint32_t state)
