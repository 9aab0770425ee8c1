# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t

from xseg.c.segment cimport xseg_segment

cdef extern from "xseg/check.h" nogil:
    ctypedef void xseg_check_report(void *arg, const char *text) noexcept
    uint32_t xseg_check(
        const xseg_segment *seg, xseg_check_report *report, void *arg
    )
