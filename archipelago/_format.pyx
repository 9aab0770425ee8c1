# SPDX-License-Identifier: Apache-2.0
"""What the stored map structures share: ids of 16 bytes, and errors of damage."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EBADMSG, EINVAL, ENOMEM, EPROTONOSUPPORT
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

import os


class MapFormatError(ValueError):
    """Stored bytes are damaged, or not what they should be; the message says how."""


cdef fail(int64_t rc, str what):
    """Raise what a negative result means."""
    if rc == -ENOMEM:
        raise MemoryError(what)
    if rc == -EBADMSG or rc == -EPROTONOSUPPORT:
        raise MapFormatError(f"{what} is damaged")
    if rc == -EINVAL:
        raise ValueError(f"{what}: not in ascending order, or out of range")
    raise OSError(-rc, f"{what}: {os.strerror(-rc)}")


cdef int put_id(uint8_t *to, value, str what) except -1:
    if len(value) != 16:
        raise MapFormatError(f"{what} has {len(value)} bytes, not 16")
    memcpy(to, PyBytes_AS_STRING(bytes(value)), 16)
    return 0


cdef bytes get_id(const uint8_t *data):
    return PyBytes_FromStringAndSize(<const char *>data, 16)
