# SPDX-License-Identifier: Apache-2.0
from archipelago.c.mapper cimport map_table


cdef class JournalTable:
    cdef map_table table
