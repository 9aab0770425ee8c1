# SPDX-License-Identifier: Apache-2.0
"""The current journal of a volume: what its header knows of it.

A journal's first record has no marks and is durable before a header counts on it.  From
then on the header names a least length, so that a journal that is gone, empty or cut
is damage (``docs/format/journal.md``).  The length is raised whenever the header is
written with appends held back, and when the volume is closed.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import replace

from archipelago._format import MapFormatError
from archipelago._header import Header
from archipelago._journal import journal_marks, pack_journal_record
from archipelago.errors import ArchipelagoError, BlockNotFound, NoSpace
from archipelago.ids import journal_id
from archipelago.objects import Store
from archipelago.volume.headers import Headers
from archipelago.volume.maps import Maps

log = logging.getLogger(__name__)


def begin_journal(store: Store, uuid: bytes, number: int, fence: int) -> int:
    """Make a journal, with its first record, durable.

    Args:
        store: where.
        uuid: of the volume.
        number: of the journal.
        fence: of the lease that is held.

    Returns:
        The least length that its header may name [bytes].  0: the store is full, or the
        journal has been begun in another way; then it is begun by its first marks.

    Raises:
        LeaseLost: another instance has a newer fence.
    """
    record = pack_journal_record(uuid, number, 0, 0, fence, ())
    target = journal_id(uuid, number)
    try:
        store.append(target, 0, record, fence)
    except NoSpace:
        return 0
    except ArchipelagoError as error:
        if error.number != errno.ERANGE:
            raise
        return _begun_before(store, uuid, number, len(record))
    return len(record)


def _begun_before(store: Store, uuid: bytes, number: int, length: int) -> int:
    """The least length of a journal that is there, begun by a change that ended early.

    Its first record may not be durable yet: it is made so.
    """
    target = journal_id(uuid, number)
    try:
        found = store.read(target, 0, length)
        marks, valid = journal_marks(found, uuid=uuid, number=number)
    except (BlockNotFound, MapFormatError):
        return 0
    if marks or valid != length:
        return 0
    store.flush(target)
    return length


def note_length(headers: Headers, maps: Maps, handle: int, header: Header) -> Header:
    """Store how long the journal of a volume is that is about to be closed.

    Args:
        headers: where headers are stored.
        maps: where the map is open, for writing.
        handle: its handle.
        header: of the volume, as stored.

    Returns:
        The header as stored now.  If it cannot be replaced, it stays as it is: a loss
        of the newest records would then not be noticed, which is no reason to fail.
    """
    try:
        journal = maps.info(handle).journal
        length = journal.length_bytes
        if journal.number != header.journal or length <= header.journal_least:
            return header
        after = replace(header, version=header.version + 1, journal_least=length)
        headers.replace(after)
    except ArchipelagoError as error:
        log.info('the journal\'s length of "%s" is not noted: %s', header.name, error)
        return header
    return after
