# SPDX-License-Identifier: Apache-2.0
"""Issue 9, faults 5 and 26: removed storage returns while other instances run.

Nothing is left behind either when a node dies in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archipelago.errors import MapCorrupt
from archipelago.ids import ObjectId, header_id, layer_id
from archipelago.volume.clone import clone
from archipelago.volume.compact import compact_to
from archipelago.volume.context import Context
from archipelago.volume.create import create
from archipelago.volume.remove import remove
from archipelago.volume.rename import rename
from archipelago.volume.resize import resize
from archipelago.volume.snapshot import snapshot
from tests.helpers.inprocess import BLOCK, SECTOR
from tests.helpers.store import Store, content, crash, names, put
from xseg.constants import ObjectKind

KEPT = {ObjectKind.NONE, ObjectKind.GENERATION, ObjectKind.PRESENCE}


@pytest.fixture(params=["mem", "file"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    path = tmp_path / "store" if request.param == "file" else None
    with Store(tmp_path, path) as made:
        yield made


def left(ctx: Context) -> list[ObjectId]:
    """What is stored besides headers."""
    kinds = set(ObjectKind) - KEPT - {ObjectKind.HEADER}
    here = {each.instance for each in ctx.presences.living()} | {ctx.instance}
    return [
        ObjectId(kind, raw)
        for kind in kinds
        for raw, *_ in ctx.store.listing(kind)
        if kind is not ObjectKind.LEASE or raw[:16] not in here
    ]


def begin(ctx: Context) -> None:
    """Be present, as a running instance."""
    ctx.presences.begin()
    ctx.reclaimer.come()


def family(ctx: Context) -> None:
    """A volume with a snapshot, a clone, and merged tables."""
    create(ctx, "v", 8 * BLOCK, BLOCK)
    put(ctx, "v", b"a" * SECTOR, 0)
    snapshot(ctx, "v", "old")
    put(ctx, "v", b"b" * SECTOR, SECTOR)
    snapshot(ctx, "v", "s")
    compact_to(ctx, "s", 1)
    clone(ctx, "s", ["c"])
    put(ctx, "c", b"c" * SECTOR, 0)


def test_space_returns_beside_an_idle_instance(store: Store) -> None:
    a, b = store.node("a"), store.node("b")
    begin(a)
    begin(b)
    family(a)
    for name in names(a):
        remove(a, name)
    assert left(a)
    a.reclaimer.ripen()
    assert a.reclaimer.run() == 0  # b has not come to the new generation
    b.reclaimer.come()
    a.reclaimer.run()
    assert left(a) == []


def test_a_change_under_way_elsewhere_is_waited_for(store: Store) -> None:
    a, b = store.node("a"), store.node("b")
    begin(a)
    begin(b)
    family(a)
    with b.generations.change():
        # A clone that has read the header of "s", and stores its own later.
        origin = b.headers.get("s")
        for name in names(a):
            remove(a, name)
        b.reclaimer.come()
        a.reclaimer.ripen()
        assert a.reclaimer.run() == 0
        clone_ = origin.__class__(
            **{
                **{f: getattr(origin, f) for f in origin.__dataclass_fields__},
                "name": "late",
                "uuid": bytes(range(16)),
            }
        )
        b.headers.create(clone_)
    b.reclaimer.come()
    a.reclaimer.run()
    assert content(b, "late", SECTOR) == b"a" * SECTOR
    remove(b, "late")
    b.reclaimer.run()
    a.reclaimer.come()
    b.reclaimer.run()
    assert left(a) == []


def test_what_moves_while_headers_are_read_is_kept(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = store.node("a"), store.node("b")
    begin(a)
    begin(b)
    family(a)
    for name in ("v", "old", "s"):
        remove(a, name)
    monkeypatch.setattr(a.reclaimer, "_triage", lambda todo: todo)
    a.reclaimer.run()
    b.reclaimer.come()
    # The collector has looked where "d" will be, and looks for "c" when it is gone.
    rename(b, "c", "d")
    monkeypatch.setattr(a.index, "all", list)
    a.reclaimer.run()
    assert content(b, "d", 2 * SECTOR) == b"c" * SECTOR + b"b" * SECTOR


def remove_all(ctx: Context) -> None:
    for name in names(ctx):
        remove(ctx, name)


OPERATIONS: dict[str, Callable[[Context], object]] = {
    "remove": remove_all,
    "snapshot": lambda ctx: snapshot(ctx, "c", "t"),
    "shrink": lambda ctx: resize(ctx, "c", BLOCK),
    "rename": lambda ctx: rename(ctx, "c", "d"),
    "merge": lambda ctx: compact_to(ctx, "v", 1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_issue_9_fault_26_a_node_that_dies_leaves_nothing(
    store: Store, name: str
) -> None:
    step, ended = 0, False
    while not ended:
        step += 1
        ctx = store.node()
        family(ctx)
        ended = crash(ctx, OPERATIONS[name], step)
        after = store.node()
        for volume in names(after):
            remove(after, volume)
        after.reclaimer.ripen()
        after.reclaimer.run()
        after.reclaimer.run()
        assert left(after) == [], step
    assert step > 2


def test_issue_9_fault_24_a_damaged_header_does_not_stop_reclaiming(
    store: Store,
) -> None:
    ctx = store.node()
    family(ctx)
    create(ctx, "bad", BLOCK, BLOCK)
    raw = bytearray(ctx.store.read(header_id("bad"), 0, 65536))
    version = int.from_bytes(raw[8:16], "little")
    raw[8:16] = (version + 1).to_bytes(8, "little")
    raw[70] ^= 1
    ctx.store.replace(header_id("bad"), bytes(raw), version)
    create(ctx, "other", BLOCK, BLOCK)
    put(ctx, "other", b"o" * SECTOR, 0)
    before = len(left(ctx))
    remove(ctx, "other")
    assert len(left(ctx)) < before
    # What was shared may be what the damaged header refers to.
    for name in ("v", "old", "s", "c"):
        remove(ctx, name)
    ctx.reclaimer.ripen()
    ctx.reclaimer.run()
    assert left(ctx)
    with pytest.raises(MapCorrupt, match="vlmc remove bad"):
        ctx.headers.get("bad")
    remove(ctx, "bad")
    create(ctx, "bad", BLOCK, BLOCK)
    remove(ctx, "bad")
    ctx.reclaimer.run()
    assert left(ctx) == []


def test_a_layer_that_no_header_got_goes(store: Store) -> None:
    ctx = store.node()
    target = layer_id(bytes(range(1, 17)))
    with (
        pytest.raises(ValueError, match="no"),
        ctx.reclaimer.making(target),
    ):
        ctx.store.write(target, 0, b"layer", durable=True)
        raise ValueError("no")
    ctx.reclaimer.run()
    assert left(ctx) == []
