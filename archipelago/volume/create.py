# SPDX-License-Identifier: Apache-2.0
"""Create: one header comes into being, and its CREATE is the commit point."""

from __future__ import annotations

import contextlib
import time

from archipelago._format import MapFormatError
from archipelago._header import LAYER, NO_LIMIT, Header, StackEntry
from archipelago._layer import layer_statistics
from archipelago.errors import (
    BlockNotFound,
    LeaseLost,
    MapCorrupt,
    UsageError,
    VolumeExists,
)
from archipelago.ids import check_name, layer_id, new_uuid, uuid_text
from archipelago.units import check_block_size, check_size
from archipelago.volume.context import Context
from archipelago.volume.headers import first_version, taken
from xseg.constants import BLOCK_MAX_BYTES, VolumeFlag


def create(
    ctx: Context,
    name: str,
    size: int,
    block_size: int = BLOCK_MAX_BYTES,
    *,
    read_only: bool = False,
    layer: bytes | None = None,
) -> Header:
    """Create an empty volume, or one over a finished layer.

    Args:
        ctx: where.
        name: a new name.
        size: [bytes], more than 0.
        block_size: a power of two from 64 KiB to 4 MiB [bytes].
        read_only: make a snapshot of it at once.
        layer: uuid of a durable layer that becomes its contents.

    Raises:
        UsageError: a bad name or size.
        VolumeExists: the name is taken.
    """
    check_name(name)
    check_size(size)
    check_block_size(block_size)
    stack: tuple[StackEntry, ...] = ()
    if layer is not None:
        stack = (_layer_entry(ctx, layer, block_size),)
    header = fresh(
        name,
        size=size,
        block_size=block_size,
        flags=VolumeFlag.READONLY if read_only else 0,
        parent="",
        stack=stack,
    )
    with ctx.locks.hold(name):
        put(ctx, header)
    return header


def fresh(
    name: str,
    *,
    size: int,
    block_size: int,
    flags: int,
    parent: str,
    epoch: int = 1,
    stack: tuple[StackEntry, ...],
) -> Header:
    """Make the first header of a new volume, with a uuid of its own.

    The epoch of a snapshot, which is never written to, tells what it is a snapshot of.
    """
    return Header(
        name=name,
        uuid=new_uuid(),
        version=first_version(),
        fence=0,
        size=size,
        block_size=block_size,
        epoch=epoch,
        flags=int(flags),
        created_ns=time.time_ns(),
        parent=parent,
        journal=1,
        moving_to="",
        moved_from="",
        stack=stack,
    )


def put(ctx: Context, header: Header) -> None:
    """Store a new header; the caller holds the lock of its name.

    Raises:
        VolumeExists: the name is taken.
    """
    try:
        ctx.headers.create(header)
    except VolumeExists:
        if not bury(ctx, header.name):
            raise
        ctx.headers.create(header)


def bury(ctx: Context, name: str) -> bool:
    """Remove the dead header that an interrupted rename left under a name.

    The caller holds the name's lock; the lease of the renamed volume is taken, so that
    no other instance is in the middle of that rename.  If one is all the same, paused
    or cut off, it finds other versions than it knows and gives up.

    Returns:
        False if the name has a valid header.
    """
    dead = ctx.headers.peek(name)
    if dead is None:
        return True
    if ctx.headers.find(name) is not None:
        return False
    with ctx.leases.hold(dead.uuid, dead.moving_to or name):
        if ctx.headers.find(name) is not None:
            return False
        if dead.moving_to:
            # The volume under its new name may need this header until it is settled.
            moved = ctx.headers.find(dead.moving_to, durable=True)
            if moved is not None and moved.moved_from == name:
                ctx.headers.settle(moved)
        with contextlib.suppress(LeaseLost):
            ctx.headers.delete(name, dead.version)
    return ctx.headers.peek(name) is None


def refuse_existing(ctx: Context, name: str) -> None:
    """Raise `VolumeExists` if a name is taken; clear it if a dead header is there."""
    if not bury(ctx, name):
        raise taken(name)


def _layer_entry(ctx: Context, uuid: bytes, block_size: int) -> StackEntry:
    """Describe a finished layer as the only entry of a stack."""
    target = layer_id(uuid)
    try:
        found = layer_statistics(lambda off, size: ctx.store.read(target, off, size))
    except BlockNotFound:
        raise UsageError(f"there is no layer {uuid_text(uuid)}") from None
    except MapFormatError as error:
        raise MapCorrupt(f"layer {uuid_text(uuid)} is damaged: {error}") from error
    if found.uuid != uuid or found.block_size != block_size:
        raise UsageError(
            f"layer {uuid_text(uuid)} has blocks of {found.block_size} bytes, not "
            f"{block_size}"
        )
    return StackEntry(
        type=LAYER,
        owned=True,
        id=uuid,
        number=0,
        length=found.length,
        extent_uuid=bytes(16),
        extent_epoch=0,
        limit=NO_LIMIT,
    )
