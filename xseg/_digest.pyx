# SPDX-License-Identifier: Apache-2.0
"""Names of content blocks, computed without the interpreter's lock."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t

from xseg._errors cimport check
from xseg.c.digest cimport DIGEST_BYTES, digest_block_id, digest_stripped_bytes


def block_id(data):
    """SHA-256 of the bytes with trailing zeros stripped: the name of the block.

    Args:
        data: Any contiguous bytes-like object; it must not change meanwhile.

    Returns:
        32 bytes.
    """
    cdef Py_buffer view
    cdef uint8_t id[DIGEST_BYTES]
    cdef int rc
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        rc = digest_block_id(view.buf, <size_t>view.len, id)
    PyBuffer_Release(&view)
    check(rc, "SHA-256")
    return <bytes>(<const char *>id)[:DIGEST_BYTES]


def stripped_bytes(data):
    """Length of the bytes without their trailing zeros [bytes]."""
    cdef Py_buffer view
    cdef size_t length
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        length = digest_stripped_bytes(view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return length


def is_zero(data):
    """True if every byte is zero, as of no bytes at all."""
    return stripped_bytes(data) == 0


EMPTY_BLOCK_ID = block_id(b"")
