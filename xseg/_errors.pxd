# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int64_t

cdef int64_t check(int64_t rc, str what=*) except -1
