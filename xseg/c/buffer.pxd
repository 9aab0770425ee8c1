# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int64_t, uint32_t, uint64_t

from xseg.c.segment cimport xseg_segment

cdef extern from "xseg/buffer.h" nogil:
    enum:
        XSEG_BUFFER_MIN_BYTES
        XSEG_BUFFER_MAX_BYTES

    struct xseg_heap_usage_s "xseg_heap_usage":
        uint64_t total_bytes
        uint64_t used_bytes
        uint32_t nr_buffers
        uint32_t nr_used_buffers

    int64_t xseg_buffer_alloc(xseg_segment *seg, uint64_t size, uint64_t *off)
    int xseg_buffer_free(xseg_segment *seg, uint64_t off)
    void xseg_heap_usage(const xseg_segment *seg, xseg_heap_usage_s *usage)
