# SPDX-License-Identifier: Apache-2.0
"""Headers of maps, coded by the mapper's own C.

The control half of mapperd reads and writes them with it.  Format:
``docs/format/header.md``.  Everything that is read is checked; what is damaged or
contradicts itself is a `MapFormatError`.
"""

from dataclasses import dataclass

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint16_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from archipelago._format cimport get_id, put_id
from archipelago.c.mapper cimport (
    MAP_ENTRY_OWNED,
    map_entry,
    map_header,
    map_header_bytes,
    map_header_fini,
    map_header_pack,
    map_header_unpack,
    map_name,
)

from archipelago._format import MapFormatError

LAYER = 1
JOURNAL = 2
NO_LIMIT = 2**64 - 1


@dataclass(frozen=True, slots=True)
class StackEntry:
    """One immutable table of a map's stack.

    Attributes:
        type: `LAYER` or `JOURNAL`.
        owned: This map alone refers to it: removing the map removes it.
        id: 16 bytes: the layer's uuid, or the uuid of the volume whose journal it is.
        number: The journal's number; 0 for a layer.
        length: Of the frozen journal, or of the whole layer [bytes].
        extent_uuid: 16 bytes: volume whose extent the journal's marks refer to; zeros
            for a layer.
        extent_epoch: Epoch of that extent; 0 for a layer.
        limit: It provides nothing at or beyond it [bytes]; `NO_LIMIT`.
    """

    type: int
    owned: bool
    id: bytes
    number: int
    length: int
    extent_uuid: bytes
    extent_epoch: int
    limit: int


@dataclass(frozen=True, slots=True)
class Header:
    """A map's header.

    Attributes:
        name: 1 to 255 bytes of UTF-8.
        uuid: 16 bytes, not all zero.
        version: Of the stored object; each replacement has the old one's plus 1.
        fence: Of the lease it was written under.
        size: Of the volume [bytes].
        block_size: A power of two from 64 KiB to 4 MiB [bytes].
        epoch: Writes go to EXTENT(uuid, epoch).
        flags: XSEG_VOL_READONLY (1), XSEG_VOL_TAIL (2).
        created_ns: CLOCK_REALTIME [ns].
        parent: Name of the snapshot it came from, or "".
        journal: Number of the current journal.
        journal_least: So much of it was durable when the header was written [bytes];
            0: it may not be there yet.
        moving_to: New name while it is renamed, or "".
        moved_from: Old name while it is renamed, or "".
        stack: Top first, at most 512 entries.
    """

    name: str
    uuid: bytes
    version: int
    fence: int
    size: int
    block_size: int
    epoch: int
    flags: int
    created_ns: int
    parent: str
    journal: int
    moving_to: str
    moved_from: str
    stack: tuple
    journal_least: int = 0


cdef int put_name(map_name *to, str value) except -1:
    cdef bytes raw
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise MapFormatError(f"name {value!r} is not UTF-8 text") from None
    if len(raw) > 255:
        raise MapFormatError(f"name {value!r} is longer than 255 bytes")
    to.len = <uint16_t>len(raw)
    memcpy(to.bytes, PyBytes_AS_STRING(raw), len(raw))
    return 0


cdef int put_entry(map_entry *to, e) except -1:
    memset(to, 0, sizeof(map_entry))
    to.type = e.type
    to.flags = MAP_ENTRY_OWNED if e.owned else 0
    put_id(to.id, e.id, "id of a stack entry")
    to.number = e.number
    to.length_bytes = e.length
    put_id(to.extent_uuid, e.extent_uuid, "extent uuid of a stack entry")
    to.extent_epoch = e.extent_epoch
    to.limit_bytes = e.limit
    return 0


cdef get_entry(const map_entry *e):
    return StackEntry(
        type=e.type,
        owned=bool(e.flags & MAP_ENTRY_OWNED),
        id=get_id(e.id),
        number=e.number,
        length=e.length_bytes,
        extent_uuid=get_id(e.extent_uuid),
        extent_epoch=e.extent_epoch,
        limit=e.limit_bytes,
    )


cdef str get_name(const map_name *name):
    return name.bytes[:name.len].decode()


def pack_header(h):
    """Code a header for storing.

    Args:
        h: The `Header`.

    Returns:
        Its bytes, at most 64 KiB.

    Raises:
        MapFormatError: `unpack_header` would refuse it; the message says why.
        OverflowError: A number is negative or too large for its field.
    """
    cdef map_header c
    cdef const char *why = NULL
    cdef int64_t rc
    cdef bytes out
    memset(&c, 0, sizeof(c))
    stack = tuple(h.stack)
    c.entries = <map_entry *>calloc(len(stack) or 1, sizeof(map_entry))
    if c.entries == NULL:
        raise MemoryError
    try:
        for i, e in enumerate(stack):
            put_entry(&c.entries[i], e)
        c.nr_entries = len(stack)
        put_id(c.uuid, h.uuid, "uuid")
        c.version = h.version
        c.fence = h.fence
        c.size_bytes = h.size
        c.epoch = h.epoch
        c.created_ns = h.created_ns
        c.journal = h.journal
        c.journal_least_bytes = h.journal_least
        c.block_bytes = h.block_size
        c.flags = h.flags
        put_name(&c.name, h.name)
        put_name(&c.parent, h.parent)
        put_name(&c.moving_to, h.moving_to)
        put_name(&c.moved_from, h.moved_from)
        out = PyBytes_FromStringAndSize(NULL, map_header_bytes(&c))
        rc = map_header_pack(&c, PyBytes_AS_STRING(out), len(out), &why)
    finally:
        map_header_fini(&c)
    if rc < 0:
        raise MapFormatError((<bytes>why).decode())
    return out


def unpack_header(data):
    """Read a stored header.

    Args:
        data: The bytes of the whole object, any contiguous bytes-like object.

    Returns:
        The `Header`.

    Raises:
        MapFormatError: The bytes are damaged or not a header; the message says why.
    """
    cdef map_header c
    cdef const char *why = NULL
    cdef Py_buffer view
    cdef int rc
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    rc = map_header_unpack(view.buf, <size_t>view.len, &c, &why)
    PyBuffer_Release(&view)
    if rc == -ENOMEM:
        raise MemoryError
    if rc < 0:
        raise MapFormatError((<bytes>why).decode())
    try:
        return Header(
            name=get_name(&c.name),
            uuid=get_id(c.uuid),
            version=c.version,
            fence=c.fence,
            size=c.size_bytes,
            block_size=c.block_bytes,
            epoch=c.epoch,
            flags=c.flags,
            created_ns=c.created_ns,
            parent=get_name(&c.parent),
            journal=c.journal,
            moving_to=get_name(&c.moving_to),
            moved_from=get_name(&c.moved_from),
            journal_least=c.journal_least_bytes,
            stack=tuple([get_entry(&c.entries[i]) for i in range(c.nr_entries)]),
        )
    finally:
        map_header_fini(&c)
