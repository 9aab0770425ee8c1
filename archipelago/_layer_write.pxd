# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int64_t

from archipelago.c.mapper cimport layer_writer


cdef class LayerWriter:
    cdef layer_writer *writer
    cdef object write
    cdef object error

    cdef int check(self, int64_t rc) except -1
