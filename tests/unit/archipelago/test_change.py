# SPDX-License-Identifier: Apache-2.0
"""What fails in the middle of a change: rolled back, carried through, or stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

import archipelago
from archipelago import Client, Volume
from archipelago._header import Header
from archipelago.ids import ObjectId, journal_id, lease_id
from archipelago.volume.checkpoint import checkpoint, mend
from archipelago.volume.compact import choose
from tests.helpers.inprocess import BLOCK, MIB, SECTOR, Running
from xseg.constants import PORT_BLOCKERM, Op
from xseg.payload import Lease, ObjectInfo

#: Length of the record that begins a journal [bytes].
BEGUN = 32


@pytest.fixture
def volume(client: Client) -> Iterator[Volume]:
    """An open volume with flushed and unflushed data."""
    client.create("v", 8 * MIB, block_size=BLOCK)
    opened = client.open("v")
    opened.pwrite(b"one" * SECTOR, 0)
    opened.flush()
    opened.pwrite(b"two", 0)
    yield opened
    with contextlib.suppress(archipelago.ArchipelagoError):
        opened.close()


def goes_on(client: Client, volume: Volume) -> None:
    """The volume works, and keeps what is flushed across a close."""
    assert volume.pread(6, 0) == b"twoone"
    volume.pwrite(b"three", SECTOR * 5)
    volume.flush()
    volume.close()
    with client.open("v") as again:
        assert again.pread(6, 0) == b"twoone"
        assert again.pread(5, SECTOR * 5) == b"three"


def once(
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    error: Exception,
    *,
    after: bool = False,
    times: int = 1,
) -> None:
    """Let a method fail the first times it is called, before or after its deed."""
    real: Callable[..., object] = getattr(owner, name)
    left = times

    def failing(*args: object, **kwargs: object) -> object:
        nonlocal left
        if left == 0:
            return real(*args, **kwargs)
        left -= 1
        if after:
            real(*args, **kwargs)
        raise error

    monkeypatch.setattr(owner, name, failing)


def test_a_header_that_cannot_be_stored_changes_nothing(
    instance: Running, client: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_space = archipelago.NoSpace("the store is full")
    once(monkeypatch, instance.ctx.headers, "replace", no_space)
    with pytest.raises(archipelago.NoSpace):
        client.snapshot("v", "s")
    assert client.info("v", usage=False).epoch == 1
    assert not client.exists("s")
    goes_on(client, volume)


def test_an_answer_that_is_lost_after_the_deed_is_found_out(
    instance: Running, client: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = archipelago.BackendUnavailable("the blocker died")
    once(monkeypatch, instance.ctx.headers, "replace", died, after=True)
    client.snapshot("v", "s")
    assert client.info("v", usage=False).epoch == 2
    goes_on(client, volume)
    with client.open("s") as snapshot:
        assert snapshot.pread(6, 0) == b"twoone"


def test_a_map_that_does_not_follow_is_rolled_back(
    instance: Running, client: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = archipelago.UsageError("the mapper cannot update the map")
    once(monkeypatch, instance.ctx.maps, "follow", refused)
    with pytest.raises(archipelago.UsageError):
        client.snapshot("v", "s")
    info = client.info("v", usage=False)
    assert (info.epoch, info.depth) == (1, 0)
    assert not client.exists("s")
    goes_on(client, volume)


def test_a_map_that_cannot_be_rolled_back_is_stopped(
    instance: Running, client: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = archipelago.IoError("the mapper cannot update the map")
    once(monkeypatch, instance.ctx.maps, "follow", refused, times=2)
    with pytest.raises(archipelago.IoError):
        client.snapshot("v", "s")
    with pytest.raises(archipelago.ArchipelagoError):
        volume.pwrite(b"x", 0)
    with contextlib.suppress(archipelago.ArchipelagoError):
        volume.close()
    # vlmcd had flushed for the snapshot: that much is there
    with client.open("v") as again:
        assert again.pread(6, 0) == b"twoone"
        again.pwrite(b"x", 0)


def test_a_header_that_somebody_else_changed_stops_the_volume(
    instance: Running, client: Client, volume: Volume
) -> None:
    header = instance.ctx.headers.get("v")
    changed = replace(header, version=header.version + 1, fence=header.fence + 7)
    instance.ctx.headers.replace(changed)
    with pytest.raises(archipelago.LeaseLost):
        client.snapshot("v", "s")
    with pytest.raises(archipelago.ArchipelagoError):
        volume.pwrite(b"x", 0)


def append_garbage(instance: Running, header: Header, offset: int, fence: int) -> None:
    target: ObjectId = journal_id(header.uuid, header.journal)
    reply = instance.ctx.messenger.call(
        PORT_BLOCKERM, Op.APPEND, target=target, offset=offset, data=b"torn",
        args=(fence,),
    )  # fmt: skip
    assert reply.result >= 0


@pytest.mark.parametrize("flushed", [True, False])
def test_a_torn_journal_is_left_behind_at_open(
    instance: Running, client: Client, flushed: bool
) -> None:
    client.create("v", 8 * MIB, block_size=BLOCK)
    ctx = instance.ctx
    with client.open("v") as volume:
        if flushed:
            volume.pwrite(b"flushed", 0)
    header = ctx.headers.get("v")
    stored = ctx.store.stat(journal_id(header.uuid, header.journal))
    length = stored.size_bytes if stored else 0
    assert (length > BEGUN) is flushed
    append_garbage(instance, header, length, header.fence)
    with client.open("v") as volume:
        assert ctx.headers.get("v").journal == header.journal + 1
        assert volume.pread(7, 0) == (b"flushed" if flushed else bytes(7))
        volume.pwrite(b"again", SECTOR)
        volume.flush()
    with client.open("v") as volume:
        assert volume.pread(5, SECTOR) == b"again"
    assert ctx.headers.get("v").journal == header.journal + 1


@pytest.mark.parametrize("step", ["checkpoint", "mend"])
def test_what_was_closed_meanwhile_is_not_taken_for_the_background(
    instance: Running,
    client: Client,
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """It may be another instance's by then, whose clock is behind."""
    ctx = instance.ctx
    header = ctx.headers.get("v")

    def closed_and_torn(*args: object) -> bool:
        volume.close()
        return True

    def fence() -> int:
        return Lease.unpack(
            ctx.store.read(lease_id(header.uuid), 0, Lease.LAYOUT.size)
        ).fence

    before = fence()
    if step == "mend":
        monkeypatch.setattr("archipelago.volume.checkpoint._torn", closed_and_torn)
        assert not mend(ctx, "v")
    else:
        volume.close()
        assert not checkpoint(ctx, "v")
    assert fence() == before


def test_a_journal_that_tears_while_open_is_mended(
    instance: Running, client: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = instance.ctx
    header = ctx.headers.get("v")
    assert not mend(ctx, "v")
    stat = ctx.store.stat

    def longer(target: ObjectId) -> ObjectInfo | None:
        info = stat(target)
        if info is None or target != journal_id(header.uuid, header.journal):
            return info
        return replace(info, size_bytes=info.size_bytes + 4)

    monkeypatch.setattr(ctx.store, "stat", longer)
    volume.pwrite(b"more", 9 * SECTOR)
    instance.control.maintenance.round()
    now = ctx.headers.get("v")
    assert (now.journal, now.epoch, len(now.stack)) == (header.journal + 1, 1, 1)
    goes_on(client, volume)
    with client.open("v") as again:
        assert again.pread(4, 9 * SECTOR) == b"more"


@pytest.mark.parametrize("flushed", [True, False])
def test_an_append_that_comes_late_is_not_noticed(
    instance: Running, client: Client, flushed: bool
) -> None:
    client.create("v", 8 * MIB, block_size=BLOCK)
    ctx = instance.ctx
    with client.open("v") as volume:
        if flushed:
            volume.pwrite(b"flushed", 0)
            volume.flush()
        header = ctx.headers.get("v")
        stored = ctx.store.stat(journal_id(header.uuid, header.journal))
        length = stored.size_bytes if stored else 0
        assert (length > BEGUN) is flushed
        append_garbage(instance, header, length, header.fence)
        volume.pwrite(b"more", SECTOR)
        volume.flush()  # it waits for another journal; the lease is still ours
        now = ctx.headers.get("v")
        assert (now.journal, now.epoch) == (header.journal + 1, header.epoch)
        assert now.fence == header.fence
        volume.pwrite(b"still", 2 * SECTOR)
    with client.open("v") as again:
        assert again.pread(7, 0) == (b"flushed" if flushed else bytes(7))
        assert again.pread(4, SECTOR) == b"more"
        assert again.pread(5, 2 * SECTOR) == b"still"


def test_what_is_merged_shrinks_the_stack_and_spares_large_tables() -> None:
    assert choose([1] * 8, 8) == 0
    assert choose([1] * 9, 8) in range(6, 10)
    # small ones above one large table: it is left alone
    assert choose([4096] * 8 + [1 << 20], 8) == 8
    # each result leaves at most half, and merging is never for nothing
    for lengths in ([1, 2, 4, 8, 16, 32, 64], [64, 32, 16, 8, 4, 2, 1], [1] * 100):
        for most in range(1, len(lengths)):
            count = choose(lengths, most)
            assert 2 <= count <= len(lengths)
            assert len(lengths) - count + 1 <= max(1, most)
    assert choose([5], 0) == 1
    assert choose([], 0) == 0
