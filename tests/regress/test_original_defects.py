# SPDX-License-Identifier: Apache-2.0
"""Defects of the Archipelago of 2010-2015, found by reading: none of them is ours.

The numbers are those of the list that the project started from.  What only failing or
recorded storage shows is in ``test_original_storage.py``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import archipelago
from tests.helpers.instance import Instance, running_instance

MIB = 1 << 20
BLOCK = 64 << 10


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance(backend="file") as running:
        yield running


@pytest.fixture
def client(instance: Instance) -> Iterator[archipelago.Client]:
    with instance.connect() as connected:
        yield connected
        for volume in connected.list():
            connected.remove(volume.name)


def fill(client: archipelago.Client, name: str, data: bytes, offset: int = 0) -> None:
    with client.open(name) as volume:
        volume.pwrite(data, offset)
        volume.flush()


def content(client: archipelago.Client, name: str, size: int, offset: int = 0) -> bytes:
    with client.open(name, read_only=True) as volume:
        return bytes(volume.pread(size, offset))


def second_node(first: Instance) -> contextlib.AbstractContextManager[Instance]:
    """Another instance on the store of the first."""
    store = first.home / "store"
    return running_instance(
        backend="file", data_path=str(store / "data"), maps_path=str(store / "maps")
    )


def test_1_space_comes_back_after_a_snapshot_and_its_volume_are_removed(
    client: archipelago.Client,
) -> None:
    before = client.df().private_bytes
    client.create("v", size=64 * MIB)
    fill(client, "v", os.urandom(8 * MIB))
    client.snapshot("v", "s")
    fill(client, "v", os.urandom(8 * MIB), 4 * MIB)
    assert client.df().private_bytes >= before + 16 * MIB
    client.remove("s")
    client.remove("v")
    client.wait_reclaimed()
    assert client.df().private_bytes <= before + MIB


def test_2_the_name_of_a_removed_snapshot_can_be_used_again(
    client: archipelago.Client,
) -> None:
    client.create("v", size=MIB)
    fill(client, "v", b"one")
    first = client.snapshot("v", "s")
    client.remove("s")
    fill(client, "v", b"two")
    second = client.snapshot("v", "s")
    assert content(client, "s", 3) == b"two"
    assert second.epoch > first.epoch
    assert second.uuid != first.uuid


def test_3_a_clone_has_its_parents_block_size(client: archipelago.Client) -> None:
    client.create("v", size=MIB, block_size=BLOCK)
    client.snapshot("v", "s")
    assert client.create("c", snap="s").block_size == BLOCK


def test_4_changes_while_io_is_in_flight_come_to_an_end(
    client: archipelago.Client,
) -> None:
    client.create("v", size=16 * MIB)
    stop = threading.Event()

    def load(seed: int) -> int:
        done = 0
        with client.open("v") as volume:
            while not stop.is_set() or done < 50:
                volume.pwrite(bytes([seed]) * 4096, (done * 40503 % 2048) * 4096)
                done += 1
        return done

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load, seed) for seed in (1, 2)]
        for i in range(10):
            client.snapshot("v", f"s{i}")
            client.resize("v", 16 * MIB + (i + 1) * 4096)
        client.rename("v", "w")
        stop.set()
        assert all(f.result(timeout=60) >= 50 for f in loads)
    assert client.info("w").size == 16 * MIB + 10 * 4096


def test_5_a_remove_that_is_refused_changes_nothing(client: archipelago.Client) -> None:
    client.create("v", size=MIB)
    fill(client, "v", b"still here")
    with client.open("v") as volume:
        with pytest.raises(archipelago.VolumeBusy):
            client.remove("v")
        assert volume.pread(10, 0) == b"still here"
    assert content(client, "v", 10) == b"still here"


def test_6_growing_copies_nothing_and_shrinking_forgets(
    client: archipelago.Client,
) -> None:
    client.create("v", size=4 * MIB + 100)
    fill(client, "v", b"\xff" * (MIB + 100), 3 * MIB)
    used = client.info("v").private_bytes
    client.resize("v", 8 * MIB)
    fill(client, "v", b"again", 3 * MIB)
    assert client.info("v").private_bytes == used
    client.resize("v", 3 * MIB + 10)
    client.resize("v", 8 * MIB)
    kept = b"again" + b"\xff" * 5
    assert content(client, "v", 5 * MIB, 3 * MIB) == kept + bytes(5 * MIB - 10)


def test_7_a_block_that_is_stored_already_is_found_again(
    instance: Instance, client: archipelago.Client, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(6 * MIB))
    instance.vlmc("import", str(image), "one")
    used = client.df().content_bytes
    instance.vlmc("import", str(image), "two")
    assert client.df().content_bytes == used
    assert content(client, "two", 6 * MIB) == image.read_bytes()


def test_8_a_renamed_volume_has_one_name(client: archipelago.Client) -> None:
    client.create("old", size=MIB)
    fill(client, "old", b"data")
    uuid = client.info("old").uuid
    client.rename("old", "new")
    assert [v.name for v in client.list() if v.uuid == uuid] == ["new"]
    with pytest.raises(archipelago.VolumeNotFound):
        client.info("old")
    assert content(client, "new", 4) == b"data"


def test_9_a_write_is_journaled_when_it_is_flushed(
    instance: Instance, client: archipelago.Client
) -> None:
    client.create("v", size=MIB)

    def journal() -> int:
        return sum(p.stat().st_size for p in instance.home.rglob("journals/*"))

    with client.open("v") as volume:
        empty = journal()
        volume.pwrite(b"x" * 4096, 0)
        assert journal() == empty  # written, and no flush was asked for
        volume.flush()
        flushed = journal()
        assert flushed > empty
        volume.flush()
        assert journal() == flushed  # nothing new: nothing to do


def test_10_two_readers_of_a_snapshot_do_not_reload_its_map(
    instance: Instance, client: archipelago.Client
) -> None:
    client.create("v", size=MIB)
    fill(client, "v", b"shared")
    client.snapshot("v", "s")
    with (
        second_node(instance) as other,
        other.connect() as second,
        client.open("s") as here,
        second.open("s") as there,
    ):
        for volume in (here, there):
            assert volume.pread(6, 0) == b"shared"

        def map_reads(which: Instance) -> int:
            peers = {p["name"]: p for p in which.status()["peers"]}
            return int(peers["blockerm"]["ops"])

        before = [map_reads(i) for i in (instance, other)]
        for _ in range(50):
            assert here.pread(6, 0) == there.pread(6, 0) == b"shared"
        after = [map_reads(i) for i in (instance, other)]
        # leases of other volumes may be renewed meanwhile, but nothing per read
        assert all(b - a < 20 for a, b in zip(before, after, strict=True))


def test_11_a_removed_volume_cannot_be_reached_and_locks_do_not_race(
    instance: Instance, client: archipelago.Client
) -> None:
    client.create("v", size=MIB)
    client.remove("v")
    with pytest.raises(archipelago.VolumeNotFound):
        client.open("v")
    client.create("v", size=MIB)
    with second_node(instance) as other:
        with ThreadPoolExecutor(2) as pool:
            codes = list(
                pool.map(
                    lambda i: i.command("vlmc", "lock", "v").returncode,
                    (instance, other),
                )
            )
        assert sorted(codes) == [0, 5]
        winner, loser = (instance, other) if codes[0] == 0 else (other, instance)
        assert loser.command("vlmc", "unlock", "v").returncode == 5
        winner.vlmc("unlock", "v")
