# SPDX-License-Identifier: Apache-2.0
"""The index of headers follows what this and other nodes change, and reads no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archipelago.errors import IoError
from archipelago.ids import ObjectId, header_id
from archipelago.messenger import Call
from archipelago.volume.clone import clone
from archipelago.volume.context import Context
from archipelago.volume.create import create
from archipelago.volume.index import salvage_name
from archipelago.volume.listing import list_names, list_volumes
from archipelago.volume.remove import remove
from archipelago.volume.rename import rename
from archipelago.volume.resize import resize
from tests.helpers.inprocess import BLOCK
from tests.helpers.store import Store, names
from xseg.constants import ObjectKind, Op


@pytest.fixture(params=["mem", "file"])
def nodes(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Context, Context]]:
    path = tmp_path / "store" if request.param == "file" else None
    with Store(tmp_path, path) as store:
        yield store.node("a"), store.node("b")


def test_what_another_node_changes_is_seen(nodes: tuple[Context, Context]) -> None:
    a, b = nodes
    create(a, "one", BLOCK, BLOCK, read_only=True)
    assert names(b) == ["one"]
    clone(a, "one", [f"c{i:03}" for i in range(100)])
    resize(a, "c007", 5 * BLOCK)
    assert len(names(b)) == 101
    b.index.refresh()
    assert b.index.logical_bytes == (101 + 4) * BLOCK
    rename(a, "c000", "d")
    remove(a, "c001")
    assert names(b) == ["c002", *(f"c{i:03}" for i in range(3, 100)), "d", "one"]
    b.index.refresh()
    assert b.index.logical_bytes == (100 + 4) * BLOCK
    assert b.index.name_now("c000", a.headers.get("d").uuid) == "d"


def counted(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> Callable[[Op], int]:
    """Count the requests of a node for headers."""
    seen: list[Op] = []
    send, send_many = ctx.messenger.send, ctx.messenger.send_many

    def note(call: Call) -> Call:
        if call.target is not None and call.target.kind is ObjectKind.HEADER:
            seen.append(Op(call.op))
        return call

    monkeypatch.setattr(ctx.messenger, "send", lambda call: send(note(call)))
    monkeypatch.setattr(
        ctx.messenger, "send_many", lambda calls: send_many([note(c) for c in calls])
    )
    return seen.count


def test_issue_9_fault_19_a_listing_reads_each_header_once(
    nodes: tuple[Context, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = nodes
    create(a, "one", BLOCK, BLOCK, read_only=True)
    clone(a, "one", [f"c{i:03}" for i in range(100)])
    count = counted(b, monkeypatch)
    found, marker = [], ""
    while True:
        page, more = list_volumes(b, marker=marker, limit=7)
        found += page
        marker = page[-1].name
        if not more:
            break
    assert len(found) == 101
    assert count(Op.READ) == 101
    names(b)
    assert count(Op.READ) == 101
    resize(a, "c003", 2 * BLOCK)
    names(b)
    assert count(Op.READ) == 102


def test_prefix_and_marker_choose(nodes: tuple[Context, Context]) -> None:
    a, _ = nodes
    for name in ("a", "ab", "ac", "b"):
        create(a, name, BLOCK, BLOCK)

    def listed(**how: str | int) -> tuple[list[str], bool]:
        found, more = list_volumes(a, **how)  # type: ignore[arg-type]
        return [info.name for info in found], more

    assert listed(prefix="a") == (["a", "ab", "ac"], False)
    assert listed(prefix="a", marker="ab") == (["ac"], False)
    assert listed(prefix="a", marker="a", limit=1) == (["ab"], True)
    assert listed(prefix="a", marker="b") == ([], False)
    assert listed(marker="a", prefix="b") == (["b"], False)


def test_names_come_in_pages_without_the_damaged(
    nodes: tuple[Context, Context],
) -> None:
    a, b = nodes
    for name in ("a", "bad", "c"):
        create(a, name, BLOCK, BLOCK)
    damage(a, "bad")
    assert list_names(b, "", 1) == (["a"], True)
    assert list_names(b, "a", 1) == (["c"], False)
    assert list_names(b, "c", 1) == ([], False)


def damage(ctx: Context, name: str) -> None:
    """Store a header that cannot be read."""
    raw = bytearray(ctx.store.read(header_id(name), 0, 65536))
    version = int.from_bytes(raw[8:16], "little")
    raw[8:16] = (version + 1).to_bytes(8, "little")
    raw[70] ^= 1
    ctx.store.replace(header_id(name), bytes(raw), version)


def test_a_damaged_header_is_listed_with_its_name(
    nodes: tuple[Context, Context],
) -> None:
    a, b = nodes
    for name in ("good", "bad"):
        create(a, name, BLOCK, BLOCK)
    damage(a, "bad")
    found, _ = list_volumes(b)
    assert [info.name for info in found] == ["bad", "good"]
    assert found[0].kind == "damaged" and found[0].damaged
    assert found[1].damaged is None


def test_a_name_is_found_only_where_it_is() -> None:
    assert salvage_name(header_id("vm").id, b"\1\2vm\3") == "vm"
    assert salvage_name(header_id("vm").id, b"v m").startswith("(header ")


def test_issue_9_fault_24_a_store_that_cannot_be_listed_is_an_error(
    nodes: tuple[Context, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b = nodes

    def fails(*_: object, **__: object) -> Iterator[ObjectId]:
        raise IoError("the disk says no")

    monkeypatch.setattr(b.store, "listing", fails)
    with pytest.raises(IoError):
        list_volumes(b)
