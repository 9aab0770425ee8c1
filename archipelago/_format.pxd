# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int64_t, uint8_t

cdef fail(int64_t rc, str what)
cdef int put_id(uint8_t *to, value, str what) except -1
cdef bytes get_id(const uint8_t *data)
