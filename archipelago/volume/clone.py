# SPDX-License-Identifier: Apache-2.0
"""Clone: new volumes over the stack of a snapshot, one header each.

The snapshot's header is read once for all of them.  No lease is taken for a clone: a
name comes into being atomically, and nobody can have opened it before.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from archipelago._header import Header
from archipelago.errors import (
    ArchipelagoError,
    NotSnapshot,
    UsageError,
    VolumeNotFound,
)
from archipelago.ids import check_name
from archipelago.units import check_size
from archipelago.volume.change import shared
from archipelago.volume.changing import change_of
from archipelago.volume.compact import compact_to
from archipelago.volume.context import Context
from archipelago.volume.create import fresh, put
from xseg.constants import ObjectKind, VolumeFlag


@dataclass
class Cloned:
    """What came of a request for clones.

    Attributes:
        created: names that exist now, durably.
        failed: by name, why it does not.
    """

    created: list[str] = field(default_factory=list)
    failed: dict[str, ArchipelagoError] = field(default_factory=dict)


def clone(
    ctx: Context, snapshot: str, names: list[str], size: int | None = None
) -> Cloned:
    """Make volumes that start as what a snapshot holds.

    Args:
        ctx: where.
        snapshot: name of a read-only map.
        names: new names, each once.
        size: of each clone, at least the snapshot's [bytes]; None: the same.

    Raises:
        UsageError: a bad name or size.
        VolumeNotFound: no such snapshot.
        NotSnapshot: it is a volume.
    """
    for name in names:
        check_name(name)
    if not names or len(set(names)) != len(names):
        raise UsageError("give one or more different names for the clones")
    if size is not None:
        check_size(size)
    compact_to(ctx, snapshot, ctx.limits.stack_hard)
    with ctx.locks.hold(snapshot, *names):
        origin = _origin(ctx, snapshot)
        if size is None:
            size = origin.size
        if size < origin.size:
            raise UsageError(
                f'a clone of "{snapshot}" needs at least its {origin.size} bytes, not '
                f"{size}: shrink the clone afterwards"
            )
        headers = [
            fresh(
                name,
                size=size,
                block_size=origin.block_size,
                flags=0,
                parent=origin.name,
                stack=origin.stack,
            )
            for name in names
        ]
        done = _put_all(ctx, headers)
        _still_there(ctx, origin, headers, done)
    ctx.compact_soon(origin)
    return done


def _origin(ctx: Context, name: str) -> Header:
    header = ctx.headers.get(name)
    if not header.flags & VolumeFlag.READONLY:
        raise NotSnapshot(
            f'"{name}" is a volume and may change at any time: take a snapshot with '
            f'"vlmc snapshot {name} SNAP" and clone that'
        )
    if not any(entry.owned for entry in header.stack):
        return header
    # From now on it is not the only one: its removal must leave the stack alone.
    with change_of(ctx, name) as change:
        change.commit(shared(change.header))
        return change.header


def _put_all(ctx: Context, headers: list[Header]) -> Cloned:
    done = Cloned()
    # One alone is made durable by itself; many share one flush of the store.
    many = len(headers) > 1
    results = ctx.headers.create_all(headers) if many else [False]
    for header, result in zip(headers, results, strict=True):
        try:
            if isinstance(result, ArchipelagoError):
                raise result
            if not result:
                put(ctx, header)
            done.created.append(header.name)
        except ArchipelagoError as error:
            done.failed[header.name] = error
    if many:
        ctx.store.flush_all(ObjectKind.HEADER)
    return done


def _still_there(
    ctx: Context, origin: Header, headers: list[Header], done: Cloned
) -> None:
    """Take clones back that came so late that their data may be reclaimed already.

    Until their headers were there, only the snapshot's kept what they refer to; and
    another instance may have removed it, if this one was paused in between.
    """
    if not done.created:
        return
    ctx.presences.prove()
    now = ctx.headers.find(origin.name)
    if now is not None and now.uuid == origin.uuid:
        return
    gone = VolumeNotFound(f'the snapshot "{origin.name}" was removed meanwhile')
    for header in headers:
        if header.name in done.created:
            with (
                contextlib.suppress(ArchipelagoError),
                ctx.reclaimer.retiring(header.stack),
            ):
                ctx.headers.delete(header.name, header.version)
            done.failed[header.name] = gone
    done.created = []
