# SPDX-License-Identifier: Apache-2.0
"""Taking a volume over: nothing of a former holder is read, whoever dies in between.

Control halves stand for nodes: each has an instance uuid of its own, all work on one
store.  One "dies" by never saying anything again; its lease is broken.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import archipelago
from archipelago.errors import LeaseHeld
from archipelago.ids import ObjectId
from archipelago.messenger import Call, Reply
from archipelago.volume import compact as compact_module
from archipelago.volume.changing import settled_change_of
from archipelago.volume.clone import clone
from archipelago.volume.compact import compact
from archipelago.volume.context import Context, own_extent
from archipelago.volume.create import create
from archipelago.volume.lock import lock, unlock
from archipelago.volume.open import close_volume, open_volume
from archipelago.volume.remove import remove
from archipelago.volume.rename import rename
from archipelago.volume.resize import resize
from archipelago.volume.snapshot import snapshot
from tests.helpers.inprocess import BLOCK, MIB, SECTOR
from tests.helpers.store import Crashed, Store, content, crash, die, names, put
from xseg.constants import NR_ARGS, PORT_BLOCKERB, PORT_BLOCKERM, ObjectKind, Op


def two_nodes(store: Store, name: str = "v") -> tuple[Context, Context]:
    """Two nodes, and a closed volume of the first one's whose first sector has data."""
    one, two = store.node("one"), store.node("two")
    create(one, name, 8 * BLOCK, BLOCK)
    put(one, name, b"a" * SECTOR, 0)
    return one, two


def steps_of(ctx: Context) -> list[tuple[Op, ObjectKind]]:
    """Note the changes of the store that a node makes from now on."""
    seen: list[tuple[Op, ObjectKind]] = []
    ctx.store.stepped = lambda op, target: seen.append((op, target.kind))
    return seen


def break_lease(ctx: Context, name: str) -> None:
    ctx.leases.break_(ctx.headers.get(name).uuid)


def opened_by(ctx: Context, name: str = "v") -> int:
    """Open for writing; the epoch that was found."""
    return open_volume(ctx, name, read_only=False).header.epoch


SEAL = (Op.RELEASE, ObjectKind.EXTENT)


def test_what_was_given_back_is_not_taken_over(store: Store) -> None:
    one, two = two_nodes(store)
    for node in (two, one, two, two):
        seen = steps_of(node)
        assert opened_by(node) == 1
        assert SEAL not in seen
        close_volume(node, "v")
        # nor is what was changed, or not changed, while it was closed
        resize(node, "v", 8 * BLOCK)
        lock(node, "v")
        unlock(node, "v")


def test_a_failed_change_leaves_nothing_to_take_over(store: Store) -> None:
    one, two = two_nodes(store)
    create(one, "w", 8 * BLOCK, BLOCK)
    with pytest.raises(archipelago.VolumeExists):
        snapshot(one, "v", "w")
    seen = steps_of(two)
    assert opened_by(two) == 1
    assert SEAL not in seen


def test_merging_tables_takes_nothing_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that died comes back for what it had answered and not flushed: others
    # may come first, but not for work that nobody waits for.
    one, two = two_nodes(store)
    for name in ("a", "b", "c"):
        put(one, "v", b"a" * SECTOR, 0)
        snapshot(one, "v", name)
    dead = replace(one.presences.ask, pid_start=one.presences.ask.pid_start + 1)
    one.store.begin_presence(one.instance, dead)
    epoch = opened_by(one)
    seen = steps_of(two)
    assert not compact(two, "v", 1, background=True)
    open_volume(two, "v", read_only=True)
    assert not compact(two, "v", 1, background=True)
    close_volume(two, "v")
    assert seen == []
    with (
        pytest.raises(LeaseHeld, match='"v" is in use'),
        two.locks.hold("v"),
        settled_change_of(two, "v", if_free=True),
    ):
        pass
    assert SEAL not in seen
    assert opened_by(one) == epoch
    assert one.leases.prove(one.headers.get("v").uuid)
    merge = compact_module._merge

    def closed_meanwhile(*args: Any) -> Any:
        merged = merge(*args)
        close_volume(one, "v")
        return merged

    with monkeypatch.context() as patch:
        patch.setattr(compact_module, "_merge", closed_meanwhile)
        seen = steps_of(one)
        assert not compact(one, "v", 1, background=True)
        assert (Op.ACQUIRE, ObjectKind.LEASE) not in seen
    assert opened_by(one) == epoch
    assert compact(one, "v", 1, background=True)


@pytest.mark.parametrize("change", ["open", "snapshot", "resize", "rename", "lock"])
def test_every_change_shuts_the_last_holder_out_first(
    store: Store, change: str
) -> None:
    one, two = two_nodes(store)
    epoch = opened_by(one)
    break_lease(two, "v")
    seen = steps_of(two)
    changes: dict[str, Callable[[], object]] = {
        "open": lambda: opened_by(two),
        "snapshot": lambda: snapshot(two, "v", "s"),
        "resize": lambda: resize(two, "v", 16 * BLOCK),
        "rename": lambda: rename(two, "v", "w"),
        "lock": lambda: lock(two, "v"),
    }
    changes[change]()
    order = [step for step in seen if step == SEAL or step[1] is ObjectKind.HEADER]
    assert order[0] == SEAL
    assert order[1] == (Op.UPDATE, ObjectKind.HEADER)
    name = "w" if change == "rename" else "v"
    header = two.headers.get(name)
    assert header.epoch > epoch
    assert header.journal > 1
    # the old holder can change nothing any more
    with pytest.raises(archipelago.ArchipelagoError):
        snapshot(one, "v", "late")
    assert "late" not in names(two)
    assert content(two, name, SECTOR) == b"a" * SECTOR


def test_a_restart_finds_its_volume_as_it_was(store: Store) -> None:
    one = store.node("one")
    create(one, "v", 8 * BLOCK, BLOCK)
    opened = open_volume(one, "v", read_only=False)
    again = store.node("one")
    seen = steps_of(again)
    found = open_volume(again, "v", read_only=False)
    assert (found.fence, found.header.epoch) == (opened.fence, opened.header.epoch)
    assert SEAL not in seen


@pytest.mark.parametrize("comes_back", ["itself", "another"])
def test_who_takes_over_may_die_after_each_step(store: Store, comes_back: str) -> None:
    for stop_at in range(1, 12):
        name = f"v{stop_at}"
        one, two = two_nodes(store, name)
        epoch = opened_by(one, name)
        break_lease(two, name)
        ended = crash(two, partial(opened_by, name=name), stop_at)
        third = store.node("two" if comes_back == "itself" else "three")
        if comes_back == "another":
            break_lease(third, name)
        seen = steps_of(third)
        header = open_volume(third, name, read_only=False).header
        assert header.epoch > epoch, f"not taken over after step {stop_at}"
        if comes_back == "another":
            assert SEAL in seen
        with pytest.raises(archipelago.ArchipelagoError):
            resize(one, name, MIB)
        close_volume(third, name)
        assert content(third, name, SECTOR) == b"a" * SECTOR
        if ended:
            return
    raise AssertionError("it never came to its end")


def test_a_header_that_changes_meanwhile_is_taken_over_again(store: Store) -> None:
    one, two = two_nodes(store)
    opened_by(one)
    break_lease(two, "v")
    sealed: list[int] = []

    def step(op: Op, target: ObjectId) -> None:
        if (op, target.kind) == SEAL:
            sealed.append(int.from_bytes(target.id[16:24], "little"))
            if len(sealed) == 1:
                # The old holder had sent this just before it lost its lease.
                header = one.headers.get("v")
                one.headers.replace(
                    replace(header, version=header.version + 1, epoch=header.epoch + 1)
                )

    two.store.stepped = step
    opened_by(two)
    assert sealed[:2] == [1, 2]
    assert two.headers.get("v").epoch == 3


def paused_with_a_new_header(ctx: Context, *acts: Callable[[], object]) -> None:
    """Let another node act when this one has created a header."""

    def step(done: Op, target: ObjectId) -> None:
        if (done, target.kind) == (Op.CREATE, ObjectKind.HEADER):
            ctx.store.stepped = None
            for act in acts:
                act()

    ctx.store.stepped = step


def test_a_rename_that_was_overtaken_brings_no_second_name_to_life(
    store: Store,
) -> None:
    one, two = two_nodes(store)
    paused_with_a_new_header(
        one, lambda: break_lease(two, "v"), lambda: resize(two, "v", 4 * BLOCK)
    )
    with pytest.raises(archipelago.ArchipelagoError):
        rename(one, "v", "new")
    assert names(two) == ["v"]
    remove(two, "v")
    assert names(two) == []
    assert two.headers.find("new") is None


def note_durable_reads(
    ctx: Context, patch: pytest.MonkeyPatch, steps: list[tuple[Op, ObjectKind]]
) -> None:
    """Note the reads of headers after which a power cut takes nothing back."""
    read = ctx.store.read

    def noted(
        target: ObjectId, offset: int, size: int, *, durable: bool = False
    ) -> bytes:
        if durable:
            steps.append((Op.READ, target.kind))
        return read(target, offset, size, durable=durable)

    patch.setattr(ctx.store, "read", noted)


READ = (Op.READ, ObjectKind.HEADER)


def test_a_header_is_durable_before_what_it_names_is_sealed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could bring an older one back, whose next epoch is sealed."""
    one, two = two_nodes(store)
    opened_by(one)
    break_lease(two, "v")
    steps = steps_of(two)
    note_durable_reads(two, monkeypatch, steps)
    opened_by(two)
    assert READ in steps[: steps.index(SEAL)]


def no_space(*_: Any, **__: Any) -> Any:
    raise archipelago.NoSpace("the disk is full")


@pytest.mark.parametrize("full", [False, True])
def test_a_rename_is_durable_before_another_node_settles_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Else a power cut could bring the old name back beside the new one."""
    one, two = two_nodes(store, "w")

    def step(op: Op, target: ObjectId) -> None:
        if two.headers.find("new"):
            die(one)

    one.store.stepped = step
    with contextlib.suppress(Crashed):
        rename(one, "w", "new")
    assert two.headers.get("new").moved_from == "w"
    break_lease(two, "new")
    steps = steps_of(two)
    note_durable_reads(two, monkeypatch, steps)
    if full:
        monkeypatch.setattr("archipelago.volume.remove.change_of", no_space)
        remove(two, "new")
    else:
        opened_by(two, "new")
    of_headers = [op for op, kind in steps if kind is ObjectKind.HEADER]
    assert of_headers[:2] == [Op.READ, Op.READ]  # the new name, and the old one
    assert not two.headers.find("w")


def test_a_removal_that_was_overtaken_removes_nothing(store: Store) -> None:
    one, two = two_nodes(store)
    delete = one.headers.delete

    def late(name: str, version: int) -> bool:
        break_lease(two, "v")
        put(two, "v", b"b" * SECTOR, 0)
        return delete(name, version)

    one.headers.delete = late  # type: ignore[method-assign]
    with pytest.raises(archipelago.LeaseLost):
        remove(one, "v")
    assert content(two, "v", SECTOR) == b"b" * SECTOR


def test_a_snapshot_that_comes_after_its_volume_is_gone_is_taken_back(
    store: Store,
) -> None:
    one, two = two_nodes(store)
    paused_with_a_new_header(
        one, lambda: break_lease(two, "v"), lambda: remove(two, "v")
    )
    with pytest.raises(archipelago.LeaseLost, match="no snapshot"):
        snapshot(one, "v", "s")
    assert names(two) == []


def test_a_clone_that_comes_after_its_snapshot_is_gone_is_taken_back(
    store: Store,
) -> None:
    one, two = two_nodes(store)
    snapshot(one, "v", "s")
    paused_with_a_new_header(one, lambda: remove(two, "s"))
    done = clone(one, "s", ["c"])
    assert done.created == []
    assert "removed meanwhile" in str(done.failed["c"])
    assert names(two) == ["v"]


def test_two_nodes_and_one_name(store: Store) -> None:
    one, two = two_nodes(store)
    others: list[Callable[[], object]] = [
        lambda: create(two, "v", MIB, BLOCK),
        lambda: rename(two, "w", "v"),
        lambda: snapshot(two, "w", "v"),
    ]
    for other in others:
        if "w" not in names(two):
            create(two, "w", MIB, BLOCK)
        with pytest.raises(archipelago.VolumeExists):
            other()
    # both want a new name at the same moment: one gets it, the other changes nothing
    original = one.headers.create

    def late(header: object) -> None:
        one.headers.create = original  # type: ignore[method-assign]
        create(two, "new", MIB, BLOCK)
        original(header)  # type: ignore[arg-type]

    one.headers.create = late  # type: ignore[method-assign]
    with pytest.raises(archipelago.VolumeExists):
        rename(one, "v", "new")
    assert names(two) == ["new", "v", "w"]
    assert names(one) == ["new", "v", "w"]
    assert two.headers.get("new").uuid != one.headers.get("v").uuid


class Dying:
    """A blocker that dies over one request of a node, twice, and is back then.

    Args:
        ctx: the node.
        at: which of its requests to blockers, counted from 1.
        served: whether it had done what was asked.
    """

    def __init__(
        self, ctx: Context, at: int, served: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.died = False
        self._at = at
        self._served = served
        self._send = ctx.messenger.send
        monkeypatch.setattr(ctx.messenger, "send", self._answer)

    def _answer(self, call: Call) -> Reply:
        if call.dst not in (PORT_BLOCKERB, PORT_BLOCKERM):
            return self._send(call)
        self._at -= 1
        if self._at not in (0, -1):
            return self._send(call)
        self.died = True
        if self._served:
            self._send(call)
        return Reply(-errno.EOWNERDEAD, b"", bytes(320), (0,) * NR_ARGS, 0)


def write_unflushed(ctx: Context, name: str, data: bytes) -> int:
    """Write as vlmcd does, and no more; the fence under which."""
    opened = open_volume(ctx, name, read_only=False)
    ctx.store.write(own_extent(opened.header), 0, data, durable=False)
    ctx.maps._call(Op.MAPW, opened.handle, offset=0, size=len(data), args=(1,))
    return opened.fence


@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize("what", ["open", "change", "unlock", "remove"])
def test_what_waits_for_a_fence_survives_a_try_that_fails(
    store: Store, what: str, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(1, 50):
        one, name = store.node("one"), f"v{at}"
        create(one, name, 8 * BLOCK, BLOCK)
        fence = write_unflushed(one, name, b"a" * SECTOR)
        if what == "unlock":
            lock(one, name)
        again = store.node("one")
        with monkeypatch.context() as patch:
            dying = Dying(again, at, served, patch)
            with contextlib.suppress(archipelago.ArchipelagoError):
                if what == "open":
                    open_volume(again, name, read_only=False, fence=fence)
                elif what == "change":
                    resize(again, name, 4 * BLOCK)
                elif what == "unlock":
                    unlock(again, name)
                else:
                    remove(again, name)
        if what != "remove" or name in names(again):
            asked = fence if what == "open" else 0
            found = open_volume(again, name, read_only=False, fence=asked)
            assert found.fence == fence or what != "open"
            assert content(again, name, SECTOR) == b"a" * SECTOR, f"lost at {at}"
        if not dying.died:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("change", ["open", "snapshot", "resize"])
def test_what_a_journal_holds_is_durable_before_it_is_counted_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    # Whoever wrote its last record may have died before the sync.
    ctx = store.node("one")
    create(ctx, "v", 8 * BLOCK, BLOCK)
    flushed: list[ObjectKind] = []
    flush = ctx.store.flush

    def noted(target: ObjectId) -> None:
        flushed.append(target.kind)
        flush(target)

    with monkeypatch.context() as patch:
        patch.setattr("archipelago.volume.open.note_length", lambda *args: args[-1])
        put(ctx, "v", b"a" * SECTOR, 0)
    monkeypatch.setattr(ctx.store, "flush", noted)
    changes: dict[str, Callable[[], object]] = {
        "open": lambda: opened_by(ctx),
        "snapshot": lambda: snapshot(ctx, "v", "s"),
        "resize": lambda: resize(ctx, "v", 4 * BLOCK),
    }
    changes[change]()
    assert ObjectKind.JOURNAL in flushed
