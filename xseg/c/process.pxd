# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "xseg/process.h" nogil:
    struct xseg_process:
        uint8_t boot_id[16]
        uint64_t pid_namespace
        uint64_t start
        uint32_t pid

    enum xseg_life:
        XSEG_LIFE_UNKNOWN
        XSEG_LIFE_ALIVE
        XSEG_LIFE_DEAD

    void xseg_process_self(xseg_process *self)
    xseg_life xseg_process_life(
        const uint8_t *boot_id, uint64_t pid_namespace, uint32_t pid, uint64_t start
    )
    uint64_t xseg_process_start(uint32_t pid)
