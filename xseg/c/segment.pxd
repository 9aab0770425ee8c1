# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t, uint64_t
from posix.types cimport gid_t, mode_t, uid_t

from xseg.c.layout cimport xseg_header, xseg_port_shared
from xseg.c.process cimport xseg_life
from xseg.c.request cimport xseg_request

cdef extern from "xseg/segment.h" nogil:
    struct xseg_segment:
        pass

    struct xseg_segment_options:
        uint32_t nr_ports
        uint32_t nr_requests
        uint64_t heap_bytes
        mode_t mode
        gid_t gid

    struct xseg_reap_result:
        uint32_t ports
        uint32_t requests
        uint32_t buffers

    int xseg_segment_create(
        const char *name, const xseg_segment_options *options, xseg_segment **out
    )
    int xseg_segment_attach(const char *name, xseg_segment **out)
    int xseg_segment_attach_of(const char *name, uid_t owner, xseg_segment **out)
    void xseg_segment_detach(xseg_segment *seg)
    int xseg_segment_destroy(const char *name)
    const xseg_header *xseg_segment_header(const xseg_segment *seg)
    const char *xseg_segment_name(const xseg_segment *seg)
    void *xseg_heap_ptr(const xseg_segment *seg, uint64_t off, uint64_t len)
    uint64_t xseg_heap_off(const xseg_segment *seg, const void *ptr)
    const xseg_port_shared *xseg_segment_port(const xseg_segment *seg, uint32_t id)
    const xseg_request *xseg_segment_request(const xseg_segment *seg, uint32_t index)
    xseg_life xseg_port_life(const xseg_segment *seg, uint32_t id)
    int xseg_reap(xseg_segment *seg, xseg_reap_result *result)
