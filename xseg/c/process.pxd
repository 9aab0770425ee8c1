# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "xseg/process.h" nogil:
    bint xseg_process_alive(uint32_t pid, uint64_t start)
    uint64_t xseg_process_start(uint32_t pid)
