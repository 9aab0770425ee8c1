# SPDX-License-Identifier: Apache-2.0
"""What each control request does: arguments in, JSON out.

The table is ``docs/format/control.md``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from archipelago._header import Header
from archipelago.control.arguments import Arguments
from archipelago.errors import UsageError
from archipelago.volume.clone import clone
from archipelago.volume.context import Context
from archipelago.volume.create import create
from archipelago.volume.describe import describe, describe_header, record
from archipelago.volume.listing import list_volumes
from archipelago.volume.lock import lock, unlock
from archipelago.volume.open import close_volume, open_volume
from archipelago.volume.remove import remove
from archipelago.volume.rename import rename
from archipelago.volume.resize import resize
from archipelago.volume.snapshot import snapshot
from archipelago.volume.usage import store_usage
from xseg.constants import Flag, Op

Json = dict[str, Any]

#: How long SYNC waits for other instances [s].
_RECLAIM_PATIENCE = 30.0
#: Most entries of one page of a listing.
LIST_MAX = 10000


@dataclass
class Call:
    """One control request.

    Attributes:
        name: the volume as it is called now, or empty.
        arguments: its JSON.
        flags: of the request.
        uuid: of an OPEN that is asked again: the volume, whatever its name is now.
        fence: of the same: the lease under which it was open; 0: any.
    """

    name: str
    arguments: Arguments
    flags: Flag
    uuid: bytes | None = None
    fence: int = 0


def _info(ctx: Context, header: Header) -> Json:
    return describe_header(ctx, header).to_json()


def _create(ctx: Context, call: Call) -> Json:
    header = create(
        ctx,
        call.name,
        call.arguments.number("size"),
        call.arguments.number("block_size", ctx.block_size),
        read_only=call.arguments.flag("read_only"),
        layer=call.arguments.optional_uuid("layer"),
    )
    return _info(ctx, header)


def _clone(ctx: Context, call: Call) -> Json:
    done = clone(
        ctx,
        call.name,
        call.arguments.texts("names"),
        call.arguments.optional_number("size"),
    )
    return {
        "created": done.created,
        "failed": {
            name: {"msgid": error.msgid, "message": error.message}
            for name, error in done.failed.items()
        },
    }


def _snapshot(ctx: Context, call: Call) -> Json:
    return _info(ctx, snapshot(ctx, call.name, call.arguments.text("snapshot")))


def _remove(ctx: Context, call: Call) -> Json:
    remove(ctx, call.name)
    return {}


def _rename(ctx: Context, call: Call) -> Json:
    header = rename(ctx, call.name, call.arguments.text("name"))
    call.name = header.name
    return _info(ctx, header)


def _resize(ctx: Context, call: Call) -> Json:
    return _info(ctx, resize(ctx, call.name, call.arguments.number("size")))


def _describe(ctx: Context, call: Call) -> Json:
    usage = call.arguments.flag("usage")
    return describe(ctx, call.name, usage=usage).to_json()


def _list(ctx: Context, call: Call) -> Json:
    found, more = list_volumes(
        ctx,
        prefix=call.arguments.text("prefix", ""),
        marker=call.arguments.text("marker", ""),
        limit=min(call.arguments.number("limit", 1000), LIST_MAX),
        usage=call.arguments.flag("usage"),
        leases=call.arguments.flag("leases", True),
    )
    return {"volumes": [info.to_json() for info in found], "more": more}


def _open(ctx: Context, call: Call) -> Json:
    if call.uuid is not None:
        call.name = ctx.index.name_now(call.name, call.uuid)
    read_only = bool(call.flags & Flag.RDONLY)
    open_volume(ctx, call.name, read_only=read_only, fence=call.fence)
    return {}


def _close(ctx: Context, call: Call) -> Json:
    close_volume(ctx, call.name)
    return {}


def _lock(ctx: Context, call: Call) -> Json:
    return _info(ctx, lock(ctx, call.name))


def _unlock(ctx: Context, call: Call) -> Json:
    force = call.arguments.flag("force", bool(call.flags & Flag.FORCE))
    header, broken = unlock(ctx, call.name, force=force)
    return {**_info(ctx, header), "broken": broken and broken.to_json()}


def _sync(ctx: Context, call: Call) -> Json:
    if call.arguments.flag("reclaim"):
        ctx.reclaimer.ripen()
        return {"reclaimed": ctx.reclaimer.run(_RECLAIM_PATIENCE)}
    raise UsageError('SYNC without "reclaim" does nothing: USAGE counts what is stored')


def _usage(ctx: Context, call: Call) -> Json:
    return store_usage(ctx).to_json()


def _ping(ctx: Context, call: Call) -> Json:
    return {}


_Operation = Callable[[Context, Call], Json]

#: Operations on one volume, and those on none.
_NAMED: dict[int, _Operation] = {
    Op.CREATE: _create,
    Op.CLONE: _clone,
    Op.SNAPSHOT: _snapshot,
    Op.DELETE: _remove,
    Op.RENAME: _rename,
    Op.TRUNCATE: _resize,
    Op.INFO: _describe,
    Op.OPEN: _open,
    Op.CLOSE: _close,
    Op.ACQUIRE: _lock,
    Op.RELEASE: _unlock,
}
#: They carry no JSON, in neither direction (payload.h).
PACKED = frozenset({Op.OPEN, Op.CLOSE})
_UNNAMED: dict[int, _Operation] = {
    Op.LIST: _list,
    Op.SYNC: _sync,
    Op.USAGE: _usage,
    Op.PING: _ping,
}

#: Operations that change no header.  SYNC waits until other changes are over.
_LOOKING = frozenset({Op.INFO, Op.LIST, Op.USAGE, Op.PING, Op.SYNC})
#: Replies to these describe the open volume inline.
_WITH_RECORD = frozenset({Op.OPEN, Op.SNAPSHOT, Op.TRUNCATE, Op.RENAME})


def changing(ctx: Context, op: int) -> contextlib.AbstractContextManager[object]:
    """Hold the generation while an operation runs that may change headers."""
    if op in _LOOKING:
        return contextlib.nullcontext()
    return ctx.generations.change()


def execute(ctx: Context, op: int, call: Call) -> Json:
    """Do what a request asks; returns the JSON of its answer.

    Raises:
        ArchipelagoError: nothing has changed, unless the operation says otherwise.
    """
    operation = _NAMED.get(op)
    if operation is not None and not call.name:
        raise UsageError("the request names no volume")
    operation = operation or _UNNAMED.get(op)
    if operation is None:
        raise UsageError(f"the control port does not know operation {op}")
    return operation(ctx, call)


def is_slow(op: int, call: Call) -> bool:
    """Whether a request only reads, and reads a whole map or much of the store."""
    if op == Op.INFO:
        return call.arguments.wants("usage")
    return op in (Op.LIST, Op.SYNC, Op.USAGE)


def lease_terms(ctx: Context, call: Call) -> tuple[int, int]:
    """What may be relied on of an open volume's lease; zeros without one.

    Returns:
        Until when it may be counted on, by CLOCK_BOOTTIME [ns], and the fence from
        which on it has been ours alone.
    """
    opened = ctx.table.get(call.name)
    if opened is None or opened.read_only:
        return 0, 0
    uuid = opened.header.uuid
    return ctx.presences.deadline_ns(), ctx.leases.since(uuid)


def inline_record(ctx: Context, op: int, call: Call) -> bytes:
    """The open volume as it is now, for the inline bytes of a reply; may be empty."""
    if op not in _WITH_RECORD:
        return b""
    opened = ctx.table.get(call.name)
    if opened is None or opened.broken:
        return b""
    return record(opened).pack()
