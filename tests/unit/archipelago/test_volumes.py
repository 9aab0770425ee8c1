# SPDX-License-Identifier: Apache-2.0
"""What clients can do with volumes, through real peers."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import archipelago
from archipelago import Client
from archipelago.volume.context import Limits
from tests.helpers.inprocess import BLOCK, MIB, SECTOR, Running, running
from xseg.constants import Reference, RunFlag


def create(client: Client, name: str = "v", size: int = 16 * MIB) -> None:
    client.create(name, size, block_size=BLOCK)


def write(client: Client, name: str, data: bytes, offset: int = 0) -> None:
    with client.open(name) as volume:
        volume.pwrite(data, offset)
        volume.flush()


def read(client: Client, name: str, size: int, offset: int = 0) -> bytes:
    with client.open(name, read_only=True) as volume:
        return volume.pread(size, offset)


# ---- create ----------------------------------------------------------------


def test_a_new_volume_is_described_and_reads_zeros(client: Client) -> None:
    info = client.create("v", "10G", block_size="64K")
    assert (info.name, info.kind, info.size) == ("v", "volume", 10 << 30)
    assert (info.block_size, info.epoch, info.read_only) == (BLOCK, 1, False)
    assert info.parent is None
    assert info.lease is None
    assert len(info.uuid) == 36
    assert info.created.endswith("Z")
    assert read(client, "v", 5000, 123) == bytes(5000)


def test_a_bare_number_of_bytes_and_any_size_are_taken(client: Client) -> None:
    assert client.create("odd", 1).size == 1
    with client.open("odd") as volume:
        assert volume.pwrite(b"x", 0) == 1
        assert volume.pread(1, 0) == b"x"
        with pytest.raises(archipelago.UsageError, match="do not lie in the volume"):
            volume.pwrite(b"xy", 0)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "-v", "a/b", "tab\t", "nul\0", "\x7f", "x" * 256, "é" * 128],
)
def test_a_bad_name_is_refused_and_nothing_is_made(client: Client, name: str) -> None:
    with pytest.raises(archipelago.UsageError):
        client.create(name, MIB)
    assert client.list() == []


@pytest.mark.parametrize(
    "name", ["x" * 255, "é" * 127, "ein Name", "a'b\"c", "日本", "a."]
)
def test_an_unusual_name_is_as_good_as_any(client: Client, name: str) -> None:
    client.create(name, MIB)
    assert client.info(name).name == name
    client.remove(name)
    assert not client.exists(name)


@pytest.mark.parametrize("size", [0, -1, (64 << 50) + 1, "ten", 1.5, True, None])
def test_a_bad_size_is_refused(client: Client, size: object) -> None:
    with pytest.raises(archipelago.UsageError):
        client.create("v", size)  # type: ignore[arg-type]


@pytest.mark.parametrize("block_size", [0, 4096, 32 << 10, 8 << 20, 100000])
def test_a_bad_block_size_is_refused(client: Client, block_size: int) -> None:
    with pytest.raises(archipelago.UsageError, match="power of two"):
        client.create("v", MIB, block_size=block_size)


def test_a_taken_name_is_refused(client: Client) -> None:
    create(client)
    with pytest.raises(archipelago.VolumeExists, match='"v" exists already') as caught:
        create(client)
    assert caught.value.exit_code == 4
    assert isinstance(caught.value, FileExistsError)


def test_what_is_not_there_is_not_found(client: Client) -> None:
    for call in (client.info, client.remove, client.open, client.hold, client.lock):
        with pytest.raises(archipelago.VolumeNotFound, match='"nope"') as caught:
            call("nope")
        assert caught.value.exit_code == 3


# ---- snapshot and clone ----------------------------------------------------


def test_a_snapshot_holds_what_was_there_and_the_volume_goes_on(client: Client) -> None:
    create(client)
    with client.open("v") as volume:
        volume.pwrite(b"before" * 1000, 100)
        info = client.snapshot("v", "s")
        volume.pwrite(b"after", 100)
        assert volume.pread(5, 100) == b"after"
    assert (info.kind, info.read_only, info.parent) == ("snapshot", True, "v")
    assert read(client, "s", 6000, 100) == b"before" * 1000
    assert client.info("v").epoch == 2


def test_a_snapshot_under_a_taken_name_changes_nothing(client: Client) -> None:
    create(client)
    create(client, "w")
    with client.open("v"):
        pass
    before = client.info("v")
    with pytest.raises(archipelago.VolumeExists):
        client.snapshot("v", "w")
    assert replace(client.info("v"), lease=None) == before
    with pytest.raises(archipelago.UsageError):
        client.snapshot("v", "v")


def test_a_snapshot_never_changes(client: Client) -> None:
    create(client)
    client.snapshot("v", "s")
    with pytest.raises(archipelago.ReadOnlySnapshot) as caught:
        client.snapshot("s", "t")
    assert caught.value.exit_code == 6
    with pytest.raises(archipelago.ReadOnlySnapshot):
        client.resize("s", MIB)
    with client.open("s") as volume:
        assert volume.read_only
        for change in (
            lambda: volume.pwrite(b"x", 0),
            lambda: volume.discard(0, SECTOR),
            lambda: volume.zero(0, SECTOR),
        ):
            with pytest.raises(archipelago.ReadOnlySnapshot):
                change()


def test_a_clone_starts_as_its_snapshot_and_may_be_larger(client: Client) -> None:
    create(client)
    write(client, "v", b"golden", 3 * BLOCK)
    client.snapshot("v", "s")
    info = client.create("c", 32 * MIB, snap="s")
    assert (info.parent, info.block_size, info.size) == ("s", BLOCK, 32 * MIB)
    write(client, "c", b"mine", 0)
    assert read(client, "c", 6, 3 * BLOCK) == b"golden"
    assert read(client, "c", 100, 20 * MIB) == bytes(100)
    assert read(client, "s", 4, 0) == bytes(4)
    with pytest.raises(archipelago.UsageError, match="at least"):
        client.create("d", MIB, snap="s")


def test_only_snapshots_can_be_cloned(client: Client) -> None:
    create(client)
    with pytest.raises(archipelago.NotSnapshot, match="vlmc snapshot v SNAP"):
        client.create("c", snap="v")


def test_many_clones_at_once(client: Client) -> None:
    create(client)
    write(client, "v", b"golden")
    client.snapshot("v", "s")
    create(client, "taken")
    names = [f"clone-{i}" for i in range(200)]
    result = client.clone("s", [*names, "taken"])
    assert result.created == names
    assert [type(e) for e in result.failed.values()] == [archipelago.VolumeExists]
    assert read(client, "clone-7", 6) == b"golden"
    assert len(client.list("clone-")) == 200


def test_clones_and_snapshots_survive_their_parents(client: Client) -> None:
    create(client)
    write(client, "v", os.urandom(MIB))
    data = read(client, "v", MIB)
    client.snapshot("v", "s")
    client.create("c", snap="s")
    client.remove("v")
    assert read(client, "s", MIB) == data
    client.remove("s")
    client.wait_reclaimed()
    assert read(client, "c", MIB) == data
    client.remove("c")
    client.wait_reclaimed()
    assert client.df().private_bytes == 0


def test_a_long_chain_stays_shallow(tmp_path: Path) -> None:
    with running(tmp_path, limits=Limits(stack_soft=4, stack_hard=6)) as instance:
        with instance.connect() as client:
            create(client, "base-0", 8 * MIB)
            expected = bytearray(8 * MIB)
            for i in range(40):
                offset = i * 3 * SECTOR
                piece = bytes([i + 1]) * SECTOR
                write(client, f"base-{i}", piece, offset)
                expected[offset : offset + SECTOR] = piece
                client.snapshot(f"base-{i}", f"snap-{i}")
                client.create(f"base-{i + 1}", snap=f"snap-{i}")
            assert read(client, "base-40", len(expected)) == expected
            assert client.info("base-40").depth <= 7
            for i in range(40):
                client.remove(f"base-{i}")
                client.remove(f"snap-{i}")
            instance.control.maintenance.round()
            assert read(client, "base-40", len(expected)) == expected
            client.remove("base-40")
            # a merge that was under way ends, and its table goes in the next round
            instance.control.maintenance.round()
            client.wait_reclaimed()
            usage = client.df()
            assert usage.private_bytes == 0
            # what is left is this instance's lease
            assert usage.stored_bytes <= BLOCK


# ---- rename, resize, remove ------------------------------------------------


def test_rename_moves_everything_even_while_open(client: Client) -> None:
    create(client)
    create(client, "w")
    uuid = client.info("v").uuid
    with client.open("v") as volume:
        volume.pwrite(b"kept", 0)
        assert client.rename("v", "new").name == "new"
        volume.pwrite(b"too", 4)
        volume.flush()
        assert volume.name == "new"
        assert volume.pread(7, 0) == b"kepttoo"
    assert client.info("new").uuid == uuid
    assert [v.name for v in client.list()] == ["new", "w"]
    with pytest.raises(archipelago.VolumeNotFound):
        client.info("v")
    with pytest.raises(archipelago.VolumeExists):
        client.rename("new", "w")
    create(client, "v")
    assert client.info("v").uuid != uuid
    client.rename("w", "x")
    client.rename("x", "w")
    client.snapshot("new", "s")
    client.rename("s", "t")
    assert read(client, "t", 7) == b"kepttoo"


@pytest.mark.parametrize("opened", [True, False])
def test_shrink_then_grow_reads_zeros(client: Client, opened: bool) -> None:
    create(client, size=3 * BLOCK)
    write(client, "v", b"\xff" * 3 * BLOCK)
    volume = client.open("v") if opened else None
    for size in (2 * BLOCK + 700, BLOCK, SECTOR + 1, 10):
        client.resize("v", size)
        assert client.info("v").size == size
        client.resize("v", 3 * BLOCK)
        got = read(client, "v", 3 * BLOCK)
        assert got == b"\xff" * size + bytes(3 * BLOCK - size)
    if volume:
        volume.pwrite(b"end", 3 * BLOCK - 3)
        volume.close()
    assert read(client, "v", 3, 0) == b"\xff" * 3


def test_a_snapshot_keeps_what_a_shrink_forgets(client: Client) -> None:
    create(client, size=4 * BLOCK)
    write(client, "v", b"\xaa" * 4 * BLOCK)
    client.snapshot("v", "s")
    write(client, "v", b"\xbb" * SECTOR, 3 * BLOCK)
    client.resize("v", BLOCK + 5)
    client.resize("v", 4 * BLOCK)
    assert read(client, "v", 4 * BLOCK) == b"\xaa" * (BLOCK + 5) + bytes(3 * BLOCK - 5)
    assert read(client, "s", 4 * BLOCK) == b"\xaa" * 4 * BLOCK


def test_a_clone_of_an_odd_size_grows_with_zeros(client: Client) -> None:
    create(client, size=2 * BLOCK)
    write(client, "v", b"\xcc" * 2 * BLOCK)
    client.resize("v", BLOCK + 1)
    client.snapshot("v", "s")
    client.create("c", 2 * BLOCK, snap="s")
    assert read(client, "c", 2 * BLOCK) == b"\xcc" * (BLOCK + 1) + bytes(BLOCK - 1)


def test_an_open_volume_is_not_removed(client: Client) -> None:
    create(client)
    with client.open("v") as volume:
        volume.pwrite(b"here", 0)
        with pytest.raises(archipelago.VolumeBusy, match="is in use") as caught:
            client.remove("v")
        assert caught.value.exit_code == 5
        assert volume.pread(4, 0) == b"here"
    client.remove("v")
    with pytest.raises(archipelago.VolumeNotFound):
        client.remove("v")


def test_removal_gives_everything_back(instance: Running, client: Client) -> None:
    create(client)
    write(client, "v", os.urandom(4 * MIB))
    client.snapshot("v", "s")
    write(client, "v", os.urandom(2 * MIB), MIB)
    client.resize("v", 2 * MIB)
    write(client, "v", os.urandom(MIB))
    client.clone("s", ["a", "b"])
    write(client, "a", os.urandom(MIB))
    assert client.df().private_bytes > 6 * MIB
    for name in ("s", "a", "v", "b"):
        client.remove(name)
    client.wait_reclaimed()
    assert client.df().private_bytes == 0
    assert client.df().logical_bytes == 0


# ---- what is known ---------------------------------------------------------


def test_usage_says_who_has_what(client: Client) -> None:
    create(client)
    write(client, "v", b"x" * MIB)
    info = client.info("v")
    assert info.private_bytes is not None
    assert info.private_bytes >= MIB
    assert info.shared_bytes == 0
    client.snapshot("v", "s")
    client.create("c", snap="s")
    write(client, "c", b"y" * 2 * SECTOR)
    info = client.info("c")
    assert info.shared_bytes == MIB - 2 * SECTOR
    assert info.private_bytes is not None
    assert 2 * SECTOR <= info.private_bytes < MIB
    assert client.info("s").shared_bytes == MIB
    usage = client.df()
    assert usage.logical_bytes == 3 * 16 * MIB
    assert usage.stored_bytes >= usage.private_bytes >= MIB
    assert usage.capacity_bytes >= usage.free_bytes > 0


def test_listing_is_sorted_and_complete(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(f"v{i:03}" for i in range(25))
    for name in reversed(names):
        create(client, name, MIB)
    assert [v.name for v in client.list()] == names
    assert [v.name for v in client.list("v01")] == names[10:20]
    monkeypatch.setattr("archipelago.client._LIST_PAGE", 7)
    assert [v.name for v in client.list()] == names
    assert all(v.private_bytes is None for v in client.list())
    assert client.list("v00", usage=True)[0].shared_bytes == 0


def test_extents_show_what_is_there(client: Client) -> None:
    create(client)
    with client.open("v") as volume:
        volume.pwrite(b"x" * BLOCK, BLOCK)
        volume.discard(BLOCK + SECTOR, SECTOR)
        runs = list(volume.extents())
    assert sum(run.size for run in runs) == 16 * MIB
    kinds = [(run.kind, run.offset, run.size) for run in runs]
    assert kinds[1] == (Reference.EXTENT, BLOCK, SECTOR)
    assert kinds[2][:2] == (Reference.ZERO, BLOCK + SECTOR)
    assert runs[1].flags & RunFlag.OWNED
    assert runs[0].flags & RunFlag.HOLE


def test_an_address_is_percent_encoded(client: Client) -> None:
    url = client.url("a b?é")
    assert url.startswith("nbd+unix:///a%20b%3F%C3%A9?socket=/")


# ---- use -------------------------------------------------------------------


def test_large_transfers_and_any_alignment(client: Client) -> None:
    create(client, size=40 * MIB)
    data = os.urandom(9 * MIB + 333)
    with client.open("v") as volume:
        assert volume.pwrite(data, 1234567) == len(data)
        into = bytearray(len(data))
        assert volume.pread_into(into, 1234567) == len(data)
        assert into == data
        assert volume.pread(0, 0) == b""
        volume.pwrite(memoryview(data)[5:10], 0, durable=True)
        assert volume.pread(5, 0) == data[5:10]
        volume.zero(1234567, 5 * MIB)
        assert volume.pread(len(data), 1234567) == bytes(5 * MIB) + data[5 * MIB :]
        for offset, size in ((40 * MIB, 1), (-1, 5), (0, 40 * MIB + 1)):
            with pytest.raises(archipelago.UsageError):
                volume.pread(size, offset)


def test_buffers_of_the_segment_are_not_copied(client: Client) -> None:
    create(client)
    with client.open("v") as volume, volume.buffer(BLOCK) as buffer:
        with memoryview(buffer) as view:
            view[:4] = b"here"
        assert volume.write_buffer(buffer, SECTOR, 4) == 4
        with memoryview(buffer) as view:
            view[:4] = b"gone"
        assert volume.read_buffer(buffer, SECTOR, 4) == 4
        with memoryview(buffer) as view:
            assert bytes(view[:4]) == b"here"


def test_a_queue_keeps_many_under_way(client: Client) -> None:
    create(client)
    with client.open("v") as volume, volume.buffer(64 * SECTOR) as buffer:
        with memoryview(buffer) as view:
            for i in range(64):
                view[i * SECTOR : (i + 1) * SECTOR] = bytes([i]) * SECTOR
        with volume.queue(16) as queue:
            done: dict[int, int] = {}
            for i in range(64):
                if queue.full:
                    done.update(queue.wait())
                queue.write(buffer, i * SECTOR, i, i * SECTOR, SECTOR)
            done.update(queue.wait(len(queue)))
            queue.flush("flush")
            assert dict(queue.wait()) == {"flush": 0}
        assert done == dict.fromkeys(range(64), SECTOR)
        assert volume.pread(1, 63 * SECTOR) == bytes([63])


def test_threads_share_a_client_and_a_volume(client: Client) -> None:
    create(client)
    errors: list[BaseException] = []
    volume = client.open("v")

    def work(number: int) -> None:
        try:
            for i in range(50):
                offset = (number * 50 + i) * SECTOR
                volume.pwrite(bytes([number + 1]) * SECTOR, offset)
                assert volume.pread(1, offset) == bytes([number + 1])
            client.info("v", usage=False)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    volume.close()
    assert not errors
    assert client.info("v").private_bytes >= 200 * SECTOR  # type: ignore[operator]


def test_a_volume_may_be_closed_by_another_thread(client: Client) -> None:
    create(client)
    opened: list[archipelago.Volume] = []
    thread = threading.Thread(target=lambda: opened.append(client.open("v")))
    thread.start()
    thread.join()
    opened[0].pwrite(b"x", 0)
    opened[0].close()
    client.remove("v")


def test_hold_keeps_it_open(client: Client) -> None:
    create(client)
    client.hold("v")
    client.hold("v")
    with pytest.raises(archipelago.VolumeBusy):
        client.remove("v")
    assert client.info("v").lease is not None
    client.unhold("v")
    assert client.info("v").lease is None
    with pytest.raises(archipelago.UsageError, match="not held"):
        client.unhold("v")


def test_a_closed_volume_says_so(client: Client) -> None:
    create(client)
    volume = client.open("v")
    volume.close()
    volume.close()
    with pytest.raises(archipelago.UsageError, match="closed"):
        volume.pread(1, 0)
