# SPDX-License-Identifier: Apache-2.0
"""Unused objects go only when no power cut can bring back a reference to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from archipelago.errors import BackendUnavailable
from archipelago.messenger import Call, Reply
from archipelago.volume.context import Context
from archipelago.volume.create import create
from archipelago.volume.remove import remove
from archipelago.volume.snapshot import snapshot
from tests.helpers.inprocess import BLOCK, SECTOR
from tests.helpers.store import Store, names, put
from xseg.constants import ObjectKind, Op


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    """A node that has removed volumes and not yet what they shared."""
    with Store(tmp_path) as store:
        ctx = store.node()
        create(ctx, "v", 8 * BLOCK, BLOCK)
        put(ctx, "v", b"a" * SECTOR, 0)
        snapshot(ctx, "v", "old")
        for name in names(ctx):
            remove(ctx, name)
        yield ctx


def left(ctx: Context) -> int:
    """How many objects there are but for leases."""
    kinds = set(ObjectKind) - {
        ObjectKind.NONE,
        ObjectKind.LEASE,
        ObjectKind.PRESENCE,
        ObjectKind.GENERATION,
    }
    return sum(len(list(ctx.store.list(kind))) for kind in kinds)


def test_what_the_scan_found_is_durable_before_anything_is_deleted(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Op, ObjectKind]] = []
    send, send_many = ctx.messenger.send, ctx.messenger.send_many

    def note(call: Call) -> Call:
        kind = call.target.kind if call.target else ObjectKind.NONE
        sent.append((Op(call.op), kind))
        return call

    def noting(call: Call) -> Reply:
        return send(note(call))

    def noting_many(calls: Iterable[Call]) -> list[Reply]:
        return send_many([note(call) for call in calls])

    monkeypatch.setattr(ctx.messenger, "send", noting)
    monkeypatch.setattr(ctx.messenger, "send_many", noting_many)
    # Names that this node makes durable now may be changed by another one that dies.
    ctx.headers.make_durable()
    sent.clear()
    assert ctx.reclaimer.run() > 0
    made_durable = sent.index((Op.FLUSH, ObjectKind.HEADER))
    deletes = [i for i, (op, _) in enumerate(sent) if op == Op.DELETE]
    looks = [
        i
        for i, (op, kind) in enumerate(sent)
        if kind == ObjectKind.HEADER and op in (Op.LIST, Op.READ)
    ]
    assert max(looks) < made_durable < min(deletes)
    assert left(ctx) == 0


def test_nothing_is_deleted_while_headers_cannot_be_made_durable(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise BackendUnavailable("the disk says no")

    before = left(ctx)
    assert before > 0
    with monkeypatch.context() as patch:
        patch.setattr(ctx.store, "flush_headers", fails)
        assert ctx.reclaimer.run() == 0
    assert left(ctx) == before
    assert ctx.reclaimer.run() > 0
    assert left(ctx) == 0
