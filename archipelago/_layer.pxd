# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t

from archipelago.c.mapper cimport layer, layer_cursor, layer_page


cdef class LayerReader:
    cdef layer layer
    cdef object read
    cdef object error  # what `read` raised, or what was wrong with a page
    cdef uint8_t *pages  # one per level above the leaves
    cdef uint32_t numbers[8]
    cdef uint8_t *ahead  # AHEAD_PAGES leaf pages
    cdef uint32_t ahead_first, ahead_count

    cdef str name(self)
    cdef int fetch(self, uint32_t number, uint32_t count, uint8_t *to) except -1
    cdef const layer_page *page(self, uint32_t number, uint32_t level) except NULL
    cdef void start(self, layer_cursor *c) noexcept
    cdef raise_error(self, int rc)
