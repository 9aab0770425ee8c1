# SPDX-License-Identifier: Apache-2.0
"""Journals of maps, coded by the mapper's own C.

The control half of mapperd counts the marks of one, writes records and loads a
frozen one to merge it.  Format: ``docs/format/journal.md``.  Everything that is read
is checked; what is damaged is a `MapFormatError`.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EBADMSG
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from archipelago._format cimport fail, put_id
from archipelago.c.mapper cimport (
    JOURNAL_RECORD_MAX_MARKS,
    journal_identity,
    journal_mark,
    journal_reader,
    journal_reader_end,
    journal_reader_feed,
    journal_reader_fini,
    journal_reader_init,
    journal_record_bytes,
    journal_record_pack,
    map_table,
    map_table_apply,
    map_table_fini,
    map_table_init,
)

#: Kinds of journal marks.
PRESENT = 1
ZERO = 2

#: Bytes of a journal fetched at once.
cdef enum:
    JOURNAL_CHUNK = 1 << 20


cdef int ignore_mark(void *ctx, const journal_mark *mark) noexcept nogil:
    return 0


cdef journal_identity identity_of(uuid, number) except *:
    cdef journal_identity journal
    put_id(journal.uuid, uuid, "uuid of a journal")
    journal.number = number
    return journal


def journal_marks(data, *, uuid, number, least=0):
    """Count the marks of a current journal.

    Args:
        data: The whole journal.
        uuid: 16 bytes: the volume whose journal it is.
        number: The journal's number.
        least: So much of it was durable once [bytes].

    Returns:
        (number of marks, length of the valid prefix [bytes]).  A torn last
        record is not part of it.

    Raises:
        MapFormatError: A record is damaged, not torn, or belongs to another journal or
            place; or the journal has lost records.
    """
    cdef journal_identity journal = identity_of(uuid, number)
    cdef journal_reader reader
    cdef Py_buffer view
    cdef int rc
    cdef uint64_t c_least = least
    journal_reader_init(&reader, &journal)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        rc = journal_reader_feed(&reader, view.buf, <size_t>view.len, ignore_mark, NULL)
        if rc == 0:
            rc = journal_reader_end(&reader, c_least)
        journal_reader_fini(&reader)
    PyBuffer_Release(&view)
    if rc < 0:
        fail(rc, "journal")
    return reader.nr_marks, reader.valid_bytes


def pack_journal_record(uuid, number, position, sequence, fence, marks):
    """Code one journal record.

    Args:
        uuid: 16 bytes: the volume whose journal it is for.
        number: The journal's number.
        position: Where in the journal it will be [bytes].
        sequence: 0 for a journal's first record, then 1, 2, ...
        fence: Of the writer's lease.
        marks: Of (first sector, sectors, `PRESENT` or `ZERO`).  None only with sequence
            0, to begin a journal.

    Returns:
        Its bytes.
    """
    cdef journal_identity journal = identity_of(uuid, number)
    cdef size_t nr = len(marks)
    cdef journal_mark *c
    cdef bytes out
    if (nr == 0 and sequence != 0) or nr > JOURNAL_RECORD_MAX_MARKS:
        raise ValueError(f"a record cannot have {nr} marks")
    c = <journal_mark *>calloc(nr or 1, sizeof(journal_mark))
    if c == NULL:
        raise MemoryError
    try:
        for i, (start, count, kind) in enumerate(marks):
            c[i].start = start
            c[i].nr = count
            c[i].kind = kind
        out = PyBytes_FromStringAndSize(NULL, journal_record_bytes(nr))
        journal_record_pack(
            PyBytes_AS_STRING(out), &journal, position, sequence, fence, c, nr
        )
        return out
    finally:
        free(c)


cdef int apply_mark(void *ctx, const journal_mark *mark) noexcept nogil:
    return map_table_apply(<map_table *>ctx, mark)


cdef class JournalTable:
    """A frozen journal, loaded whole."""

    def __cinit__(self, entry, block_size, read):
        cdef journal_identity journal = identity_of(entry.id, entry.number)
        cdef journal_reader reader
        cdef int rc = 0
        cdef const char *data
        cdef size_t size
        map_table_init(&self.table, block_size)
        journal_reader_init(&reader, &journal)
        try:
            while rc == 0 and reader.fed_bytes < entry.length:
                chunk = bytes(
                    read(
                        entry,
                        reader.fed_bytes,
                        min(JOURNAL_CHUNK, entry.length - reader.fed_bytes),
                    )
                )
                if not chunk:
                    rc = -EBADMSG
                    break
                data = PyBytes_AS_STRING(chunk)
                size = len(chunk)
                with nogil:
                    rc = journal_reader_feed(
                        &reader, data, size, apply_mark, &self.table
                    )
            if rc == 0:
                rc = journal_reader_end(&reader, 0)
            if rc == 0 and reader.valid_bytes != entry.length:
                rc = -EBADMSG
        finally:
            journal_reader_fini(&reader)
        if rc < 0:
            fail(rc, f"journal {entry.number} of {entry.id.hex()}")

    def __dealloc__(self):
        map_table_fini(&self.table)
