# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "xseg/layout.h" nogil:
    enum:
        XSEG_LAYOUT_VERSION
        XSEG_PAGE_BYTES
        XSEG_NAME_MAX
        XSEG_PORT_FREE
        XSEG_PORT_BINDING
        XSEG_PORT_BOUND
        XSEG_PORT_DEAD

    const uint64_t XSEG_MAGIC
    const uint32_t XSEG_PORT_ANY

    struct xseg_ring_cell:
        uint32_t sequence
        uint32_t value

    struct xseg_ring_shared:
        uint64_t cells_off
        uint32_t capacity
        uint32_t head
        uint32_t tail

    struct xseg_port_stats:
        uint64_t accepted
        uint64_t completed
        uint64_t errors
        uint64_t submitted
        uint64_t reaped
        uint64_t read_bytes
        uint64_t write_bytes
        uint64_t sleeps

    struct xseg_port_shared:
        uint32_t state
        uint32_t generation
        uint32_t owner_pid
        uint32_t bell_port
        uint64_t owner_start
        uint64_t bound_ns
        char role[32]
        uint32_t bell_word
        uint32_t bell_sleeping
        xseg_ring_shared requests
        xseg_ring_shared replies
        xseg_port_stats stats

    struct xseg_header:
        uint64_t magic
        uint32_t layout_version
        uint32_t features
        uint64_t size_bytes
        uint8_t uuid[16]
        uint32_t nr_ports
        uint32_t nr_requests
        uint32_t creator_pid
        uint64_t creator_start
        uint64_t created_ns
        uint64_t heap_off
        uint64_t heap_bytes
