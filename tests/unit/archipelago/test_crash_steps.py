# SPDX-License-Identifier: Apache-2.0
"""An operation that stops after any of its steps leaves all or nothing.

Each operation is stopped after its 1st, 2nd, ... change of the store, as if the process
had died there; then another instance looks at the store.  What it sees is the state
before or the state after, and from there everything works.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from archipelago.volume.checkpoint import checkpoint
from archipelago.volume.clone import clone
from archipelago.volume.compact import compact
from archipelago.volume.context import Context
from archipelago.volume.create import create
from archipelago.volume.describe import describe
from archipelago.volume.open import close_volume, open_volume
from archipelago.volume.remove import remove
from archipelago.volume.rename import rename
from archipelago.volume.resize import resize
from archipelago.volume.snapshot import snapshot
from tests.helpers.inprocess import BLOCK, MIB, SECTOR
from tests.helpers.store import Store, content, crash, names, put
from xseg.constants import ObjectKind

#: More steps than any operation has.
MOST_STEPS = 40


def prepare(ctx: Context) -> None:
    """Volume "v" with a snapshot "old", some sectors of each, and a clone."""
    create(ctx, "v", 8 * BLOCK, BLOCK)
    put(ctx, "v", b"a" * 3 * SECTOR, 0)
    snapshot(ctx, "v", "old")
    put(ctx, "v", b"b" * SECTOR, SECTOR)
    clone(ctx, "old", ["clone"])


BEFORE = b"a" * SECTOR + b"b" * SECTOR + b"a" * SECTOR + bytes(8 * BLOCK - 3 * SECTOR)
OLD = b"a" * 3 * SECTOR + bytes(8 * BLOCK - 3 * SECTOR)


def check_everything(ctx: Context, gone: str = "") -> None:
    """All that should be there is, holds what it should, and can be changed."""
    listed = names(ctx)
    for name in listed:
        info = describe(ctx, name, usage=True)
        assert info.name == name
    for name, expected in (("v", BEFORE), ("old", OLD), ("clone", OLD)):
        if name != gone:
            assert content(ctx, name, len(expected)) == expected, name
    for name in [n for n in listed if n not in ("v", "old", "clone")]:
        assert content(ctx, name, len(BEFORE)) == BEFORE, name


def every_step(
    store: Store,
    operation: Callable[[Context], object],
    after: Callable[[Context, bool], None],
) -> int:
    """Stop `operation` after each of its steps in turn; returns how many there were.

    Args:
        store: an empty one.
        operation: what is stopped.
        after: looks at the store; told whether the operation came to its end.
    """
    for stop_at in range(1, MOST_STEPS):
        ctx = store.node()
        prepare(ctx)
        ended = crash(ctx, operation, stop_at)
        fresh = store.node()
        after(fresh, ended)
        for name in names(fresh):
            remove(fresh, name)
        fresh.reclaimer.run()
        assert names(fresh) == []
        if ended:
            return stop_at
    raise AssertionError("the operation never came to its end")


def test_snapshot(store: Store) -> None:
    seen = set()

    def after(ctx: Context, ended: bool) -> None:
        check_everything(ctx)
        seen.add("s" in names(ctx))
        assert not ended or "s" in names(ctx)
        if "s" not in names(ctx):
            # the name is free, and the next attempt succeeds
            snapshot(ctx, "v", "s")
            check_everything(ctx)

    assert every_step(store, lambda ctx: snapshot(ctx, "v", "s"), after) > 3
    assert seen == {True, False}


def test_rename(store: Store) -> None:
    seen = set()

    def after(ctx: Context, ended: bool) -> None:
        present = {"v", "new"} & set(names(ctx))
        assert len(present) == 1, "exactly one name is valid"
        name = present.pop()
        other = "new" if name == "v" else "v"
        seen.add(name)
        assert not ended or name == "new"
        assert content(ctx, name, len(BEFORE)) == BEFORE
        assert ctx.headers.find(other) is None
        # The other name can be taken, and neither revives the other.
        create(ctx, other, MIB, BLOCK)
        assert content(ctx, other, 10) == bytes(10)
        rename(ctx, name, "third")
        remove(ctx, other)
        assert content(ctx, "third", len(BEFORE)) == BEFORE
        assert sorted(names(ctx)) == ["clone", "old", "third"]
        remove(ctx, "third")
        assert sorted(names(ctx)) == ["clone", "old"]
        check_everything(ctx, gone="v")

    assert every_step(store, lambda ctx: rename(ctx, "v", "new"), after) > 4
    assert seen == {"v", "new"}


def test_rename_back_and_removal_after_a_crash(store: Store) -> None:
    def after(ctx: Context, ended: bool) -> None:
        name = "new" if "new" in names(ctx) else "v"
        remove(ctx, name)
        assert sorted(names(ctx)) == ["clone", "old"]
        assert ctx.headers.find("v") is None
        assert ctx.headers.find("new") is None
        create(ctx, "v", MIB, BLOCK)
        create(ctx, "new", MIB, BLOCK)

    every_step(store, lambda ctx: rename(ctx, "v", "new"), after)

    def back(ctx: Context, ended: bool) -> None:
        name = "new" if "new" in names(ctx) else "v"
        other = "new" if name == "v" else "v"
        rename(ctx, name, other)
        rename(ctx, other, name)
        assert content(ctx, name, len(BEFORE)) == BEFORE
        assert sorted(names(ctx)) == sorted(["clone", "old", name])

    every_step(store, lambda ctx: rename(ctx, "v", "new"), back)


@pytest.mark.parametrize("name", ["v", "old", "clone"])
def test_remove(store: Store, name: str) -> None:
    seen = set()

    def after(ctx: Context, ended: bool) -> None:
        gone = name not in names(ctx)
        seen.add(gone)
        assert not ended or gone
        check_everything(ctx, gone=name)
        if gone:
            create(ctx, name, 8 * BLOCK, BLOCK)
            assert content(ctx, name, 100) == bytes(100)
        else:
            check_everything(ctx)

    every_step(store, lambda ctx: remove(ctx, name), after)
    assert seen == {True, False}


@pytest.mark.parametrize("size", [2 * SECTOR + 100, 2 * SECTOR])
def test_shrink(store: Store, size: int) -> None:
    seen = set()

    def after(ctx: Context, ended: bool) -> None:
        now = ctx.headers.get("v").size
        seen.add(now)
        assert now in (size, len(BEFORE))
        assert not ended or now == size
        resize(ctx, "v", len(BEFORE))
        expected = BEFORE if now == len(BEFORE) else BEFORE[:size]
        assert content(ctx, "v", len(BEFORE)) == expected.ljust(len(BEFORE), b"\0")
        assert content(ctx, "old", len(OLD)) == OLD

    every_step(store, lambda ctx: resize(ctx, "v", size), after)
    assert seen == {size, len(BEFORE)}


def test_clone(store: Store) -> None:
    def after(ctx: Context, ended: bool) -> None:
        made = [name for name in names(ctx) if name.startswith("c-")]
        assert not ended or len(made) == 3
        for name in made:
            assert content(ctx, name, len(OLD)) == OLD
        remove(ctx, "old")
        ctx.reclaimer.run()
        for name in [*made, "clone"]:
            assert content(ctx, name, len(OLD)) == OLD
            remove(ctx, name)
        assert content(ctx, "v", len(BEFORE)) == BEFORE

    every_step(store, lambda ctx: clone(ctx, "old", ["c-1", "c-2", "c-3"]), after)


def test_checkpoint_and_compact(store: Store) -> None:
    def work(ctx: Context) -> None:
        opened = open_volume(ctx, "v", read_only=False)
        checkpoint(ctx, "v")
        for _ in range(3):
            ctx.maps.mark(opened.handle, SECTOR, SECTOR)
            checkpoint(ctx, "v")
        compact(ctx, "v", 1)
        close_volume(ctx, "v")
        compact(ctx, "old", 0)
        ctx.reclaimer.run()

    def after(ctx: Context, ended: bool) -> None:
        check_everything(ctx)
        assert not ended or len(ctx.headers.get("v").stack) <= 2
        remove(ctx, "old")
        ctx.reclaimer.run()
        check_everything(ctx, gone="old")
        clone_of_v = snapshot(ctx, "v", "t")
        assert content(ctx, clone_of_v.name, len(BEFORE)) == BEFORE

    assert every_step(store, work, after) > 10


def test_a_failed_removal_leaves_no_storage_behind(store: Store) -> None:
    ctx = store.node()
    prepare(ctx)
    for name in names(ctx):
        remove(ctx, name)
    ctx.reclaimer.run()
    kept = {
        ObjectKind.NONE,
        ObjectKind.LEASE,
        ObjectKind.PRESENCE,
        ObjectKind.GENERATION,
    }
    for kind in ObjectKind:
        if kind not in kept:
            assert list(ctx.store.list(kind)) == [], kind.name
