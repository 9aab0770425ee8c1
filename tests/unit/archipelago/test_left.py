# SPDX-License-Identifier: Apache-2.0
"""Answered writes that were not flushed when their volume was closed: none is lost."""

from __future__ import annotations

import errno
from typing import NoReturn

import pytest

import archipelago
from archipelago.errors import IoError, NotRunning
from archipelago.ids import ObjectId
from archipelago.volume import left
from archipelago.volume.context import Context, own_extent
from archipelago.volume.create import create
from archipelago.volume.left import Left
from archipelago.volume.open import close_volume, open_volume
from archipelago.volume.remove import remove
from tests.helpers.inprocess import BLOCK, SECTOR
from tests.helpers.store import Store, content
from tests.unit.archipelago.test_takeover import write_unflushed

DATA = b"a" * SECTOR


@pytest.fixture
def ctx(store: Store) -> Context:
    """A node with a volume that has one answered write, not flushed."""
    ctx = store.node("one")
    create(ctx, "v", 8 * BLOCK, BLOCK)
    write_unflushed(ctx, "v", DATA)
    return ctx


def reopened(ctx: Context) -> bytes:
    """What a sector holds for who opens the volume now."""
    open_volume(ctx, "v", read_only=False)
    return content(ctx, "v", SECTOR)


def give_up(ctx: Context) -> None:
    opened = ctx.table.get("v")
    assert opened is not None
    ctx.give_up(opened, "a test wants it")


def test_it_is_there_for_who_opens_the_volume_next(ctx: Context) -> None:
    fence = ctx.leases.left(ctx.headers.get("v").uuid)
    close_volume(ctx, "v")
    assert open_volume(ctx, "v", read_only=False).fence == fence
    assert content(ctx, "v", SECTOR) == DATA


def test_so_it_is_when_the_volume_was_given_up(ctx: Context) -> None:
    give_up(ctx)
    close_volume(ctx, "v")
    assert reopened(ctx) == DATA


def test_if_nobody_opens_it_it_becomes_durable_and_the_lease_is_given_back(
    store: Store, ctx: Context
) -> None:
    uuid = ctx.headers.get("v").uuid
    waiting = Left(ctx)
    close_volume(ctx, "v")
    for _ in range(left.ROUNDS):
        assert ctx.leases.peek(uuid) is not None
        waiting.round()
    assert ctx.leases.peek(uuid) is None
    assert ctx.maps.left() == []
    two = store.node("two")
    assert reopened(two) == DATA


def test_a_volume_that_is_open_again_is_given_back_by_who_closes_it(
    ctx: Context,
) -> None:
    uuid = ctx.headers.get("v").uuid
    waiting = Left(ctx)
    close_volume(ctx, "v")
    opened = open_volume(ctx, "v", read_only=False)
    waiting.round()
    ctx.store.flush(own_extent(opened.header))
    ctx.maps.flush(opened.handle)
    close_volume(ctx, "v")
    assert ctx.leases.peek(uuid) is None


def test_what_a_fenced_map_had_keeps_no_lease(ctx: Context) -> None:
    opened = ctx.table.get("v")
    assert opened is not None
    ctx.leases.break_(opened.header.uuid)
    with pytest.raises(archipelago.ArchipelagoError):
        ctx.maps.flush(opened.handle)
    give_up(ctx)
    close_volume(ctx, "v")
    assert not opened.left
    assert not ctx.take_left()


def test_a_stop_does_not_wait_for_that(store: Store, ctx: Context) -> None:
    close_volume(ctx, "v")
    Left(ctx).settle()
    assert ctx.leases.peek(ctx.headers.get("v").uuid) is None
    assert reopened(store.node("two")) == DATA


def test_what_was_flushed_leaves_nothing(ctx: Context) -> None:
    opened = ctx.table.get("v")
    assert opened is not None
    ctx.maps.flush(opened.handle)
    close_volume(ctx, "v")
    assert ctx.leases.peek(opened.header.uuid) is None
    assert not ctx.take_left()


def failing(error: archipelago.ArchipelagoError) -> object:
    def flush(target: ObjectId) -> NoReturn:
        raise error

    return flush


def test_what_could_not_be_synced_is_not_counted_on(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ctx.store, "flush_unless_lost", lambda _: False)
        close_volume(ctx, "v")
    assert reopened(ctx) == bytes(SECTOR)


def test_only_the_word_lost_drops_it(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = IoError("too many open files", number=errno.EMFILE)
    with monkeypatch.context() as patch:
        patch.setattr(ctx.store, "flush_unless_lost", failing(failed))
        close_volume(ctx, "v")
    assert reopened(ctx) == DATA


def test_a_blocker_that_is_away_does_not_cost_it(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ctx.store, "flush_unless_lost", failing(NotRunning("away")))
        close_volume(ctx, "v")
    assert reopened(ctx) == DATA


def test_a_removal_that_fails_changes_nothing(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete(*_: object) -> NoReturn:
        raise IoError("the disk failed")

    opened = ctx.table.get("v")
    assert opened is not None
    opened.opener = (1, 1)  # a vlmcd that is dead
    with monkeypatch.context() as patch:
        patch.setattr(ctx.headers, "delete", delete)
        with pytest.raises(IoError):
            remove(ctx, "v")
    assert open_volume(ctx, "v", read_only=False).fence == opened.fence
    assert content(ctx, "v", SECTOR) == DATA


def test_a_removal_takes_it_along(ctx: Context) -> None:
    opened = ctx.table.get("v")
    assert opened is not None
    opened.opener = (1, 1)
    remove(ctx, "v")
    assert ctx.maps.left() == []
    Left(ctx).settle()


def test_a_lease_that_a_dead_process_held_is_given_back(
    store: Store, ctx: Context
) -> None:
    uuid = ctx.headers.get("v").uuid
    opened = ctx.table.get("v")
    assert opened is not None
    ctx.maps.flush(opened.handle)
    close_volume(ctx, "v")
    ctx.leases.acquire(uuid, "v")
    ctx.leases._held.clear()  # the process died: only its memory is gone
    assert ctx.leases.unheld() == [uuid]
    waiting = Left(ctx)
    ctx.presences.resumed = True
    waiting.keep()
    for _ in range(left.ROUNDS):
        assert ctx.leases.peek(uuid) is not None
        waiting.round()
    assert ctx.leases.peek(uuid) is None
    store.node("two").leases.acquire(uuid, "v")


def test_a_lock_is_not_given_back(ctx: Context) -> None:
    uuid = ctx.headers.get("v").uuid
    opened = ctx.table.get("v")
    assert opened is not None
    ctx.maps.flush(opened.handle)
    close_volume(ctx, "v")
    ctx.leases.lock(uuid, "v")
    assert ctx.leases.unheld() == []
