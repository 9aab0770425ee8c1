# SPDX-License-Identifier: Apache-2.0
from archipelago.c.mapper cimport map_entry

cdef int put_entry(map_entry *to, e) except -1
