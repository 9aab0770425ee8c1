# SPDX-License-Identifier: Apache-2.0
"""Compact: merge the top of a stack into one layer, so that depth costs nothing.

Merging reads immutable objects and needs no lock; only the exchange of the merged
entries for the new layer is a change of the volume.  If the entries are gone by then (a
shrink lowered their limits), the layer is dropped.

Small tables on top are merged again and again, large ones below rarely: a run is
extended downwards while the next table is less than twice as long as all above it, so
each byte is rewritten O(log n) times.

Source: P. O'Neil et al., "The Log-Structured Merge-Tree" (1996), size-tiered merging.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from archipelago._format import MapFormatError
from archipelago._header import LAYER, NO_LIMIT, Header, StackEntry
from archipelago._layer_write import LayerWriter
from archipelago._merge import merge
from archipelago.errors import MapCorrupt
from archipelago.ids import layer_id, new_uuid
from archipelago.layerfile import LayerFile
from archipelago.volume.change import Change, entry_object
from archipelago.volume.changing import settled_change_of
from archipelago.volume.context import Context
from xseg.constants import VolumeFlag

log = logging.getLogger(__name__)

#: What `compact_small` merges at most [bytes].
SMALL_BYTES = 256 << 10


def choose(lengths: Sequence[int], most: int) -> int:
    """Choose how many entries from the top to merge.

    Args:
        lengths: of the entries, top first [bytes].
        most: merge only if there are more entries than that.

    Returns:
        At least 2, or 0 for none.
    """
    if len(lengths) <= most:
        return 0
    keep = max(1, most // 2)
    above = 0
    for index, length in enumerate(lengths):
        if index >= 2 and len(lengths) - index + 1 <= keep and length >= 2 * above:
            return index
        above += length
    return len(lengths)


def compact_to(ctx: Context, name: str, most: int) -> None:
    """Merge until a map's stack has at most `most` entries.

    The caller holds no lock.

    Raises:
        VolumeNotFound: there is no such map.
    """
    while len(_header(ctx, name).stack) > most:
        if not compact(ctx, name, most):
            return


def compact_small(ctx: Context, name: str, most: int) -> None:
    """Merge once if there are more than `most` entries and those to merge are small.

    For volumes that are never open long enough for a merge in the background.  The
    caller holds no lock, and waits for it: so large tables are left alone.
    """
    stack = _header(ctx, name).stack
    count = choose([entry.length for entry in stack], most)
    if 0 < sum(entry.length for entry in stack[:count]) <= SMALL_BYTES:
        compact(ctx, name, most)


def compact(ctx: Context, name: str, most: int, *, background: bool = False) -> bool:
    """Merge the top of a map's stack once, if it has more than `most` entries.

    The caller holds no lock.

    Args:
        ctx: where.
        name: of the map.
        most: merge only if there are more entries than that.
        background: nobody waits for it, so nobody may be kept waiting, or lose a
            write, for it: only a snapshot, or a volume that is open here for writing.

    Returns:
        False if nothing was exchanged.

    Raises:
        VolumeNotFound: there is no such map.
        LeaseHeld: another instance has it.
    """
    before = _header(ctx, name)
    if background and not _is_at_hand(ctx, before):
        return False
    count = choose([entry.length for entry in before.stack], most)
    if count == 0:
        return False
    old = before.stack[:count]
    uuid = new_uuid()
    exchanged = False
    with ctx.reclaimer.making(layer_id(uuid)) as made:
        layer = _merge(ctx, before, old, uuid)
        with ctx.locks.hold(name):
            # Merging took its time: it may have been closed, and be another's soon.
            if not background or _is_at_hand(ctx, before):
                with (
                    settled_change_of(ctx, name, if_free=background) as change,
                    ctx.reclaimer.retiring(old, rest=True),
                ):
                    exchanged = _exchange(change, before.uuid, old, layer)
        if exchanged:
            made()
    return exchanged


def _header(ctx: Context, name: str) -> Header:
    opened = ctx.table.get(name)
    return opened.header if opened is not None else ctx.headers.get(name)


def _is_at_hand(ctx: Context, header: Header) -> bool:
    if header.flags & VolumeFlag.READONLY:
        return True
    opened = ctx.table.get(header.name)
    return opened is not None and not opened.read_only


def _merge(
    ctx: Context, header: Header, entries: tuple[StackEntry, ...], uuid: bytes
) -> StackEntry:
    """Write a durable layer that says what these entries say together."""
    target = layer_id(uuid)
    out = LayerFile(ctx.store, target)
    writer = LayerWriter(uuid, header.block_size, out.write)

    def read(entry: StackEntry, offset: int, size: int) -> bytes:
        return ctx.store.read(entry_object(entry), offset, size)

    try:
        merge(
            entries,
            header.block_size,
            writer,
            read,
            bottom=len(entries) == len(header.stack),
        )
        length = writer.finish()
        out.finish()
    except MapFormatError as error:
        why = f'a table of "{header.name}" is damaged: {error}; see docs/damage.md'
        ctx.maps.note_damage(header.uuid, why)
        raise MapCorrupt(why) from error
    return StackEntry(
        type=LAYER,
        owned=True,
        id=uuid,
        number=0,
        length=length,
        extent_uuid=bytes(16),
        extent_epoch=0,
        limit=NO_LIMIT,
    )


def _exchange(
    change: Change, uuid: bytes, old: tuple[StackEntry, ...], layer: StackEntry
) -> bool:
    """Put the layer in the place of the entries it replaces; False if they are gone."""
    stack = change.header.stack
    first = _find([_key(entry) for entry in stack], [_key(entry) for entry in old])
    if first is None or change.header.uuid != uuid:
        return False
    stack = (*stack[:first], layer, *stack[first + len(old) :])
    change.commit(replace(change.header, stack=stack))
    log.info('"%s": %d tables merged into one', change.header.name, len(old))
    return True


def _key(entry: StackEntry) -> tuple[object, ...]:
    """What makes an entry provide what it provides; not who owns it."""
    return entry.type, entry.id, entry.number, entry.length, entry.limit


def _find(
    stack: list[tuple[object, ...]], wanted: list[tuple[object, ...]]
) -> int | None:
    for first in range(len(stack) - len(wanted) + 1):
        if stack[first : first + len(wanted)] == wanted:
            return first
    return None
