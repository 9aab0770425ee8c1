# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t

cdef extern from "common/digest.h" nogil:
    enum:
        DIGEST_BYTES

    size_t digest_stripped_bytes(const void *data, size_t len)
    int digest_block_id(const void *data, size_t len, uint8_t *id)
