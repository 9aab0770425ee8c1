# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t, uint64_t

from xseg.c.layout cimport xseg_port_stats
from xseg.c.segment cimport xseg_segment

cdef extern from "xseg/port.h" nogil:
    struct xseg_port:
        pass

    int xseg_port_bind(
        xseg_segment *seg, uint32_t id, const char *role, xseg_port **out
    )
    void xseg_port_unbind(xseg_port *port)
    uint32_t xseg_port_id(const xseg_port *port)
    xseg_segment *xseg_port_segment(const xseg_port *port)
    xseg_port_stats *xseg_port_stats_of "xseg_port_stats"(xseg_port *port)
    void xseg_port_share_bell(xseg_port *port, const xseg_port *bell)
    int xseg_port_reserve(xseg_port *port, uint32_t nr)
    int xseg_port_wait(xseg_port *port, uint64_t timeout_ns)
    bint xseg_port_pending(const xseg_port *port)
    int xseg_bell_fd(xseg_port *port)
    void xseg_bell_arm(xseg_port *port)
    void xseg_bell_disarm(xseg_port *port)
