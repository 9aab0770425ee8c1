# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 2: two instances with one identity held one lease with one fence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.cluster import Node
from tests.helpers.instance import Instance

BLOCK = 4096


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Instance]:
    yield from started(tmp_path, "first")


@pytest.fixture
def copy(first: Instance, tmp_path: Path) -> Iterator[Instance]:
    """Another home, with what `state_dir` of the first says of its identity."""
    made = on_store(tmp_path, "copy")
    shutil.copytree(first.home / "store", made.home / "store")
    yield made
    made.stop()


def on_store(tmp_path: Path, name: str) -> Instance:
    home = tmp_path / name
    home.mkdir()
    store = {
        "data_path": str(tmp_path / "data"),
        "maps_path": str(tmp_path / "maps"),
        "lease_ttl": "1",
    }
    return Instance(home, store)


def started(tmp_path: Path, name: str) -> Iterator[Instance]:
    made = on_store(tmp_path, name)
    made.start()
    yield made
    made.stop()


def identity(instance: Instance) -> str:
    return (instance.home / "store" / "instance").read_text()


def refused(instance: Instance, *options: str, code: int = 2) -> str:
    done = instance.command("archipelago", "start", *options)
    assert done.returncode == code, done.stderr + instance.logs()
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_the_second_is_refused_until_it_has_another_identity(
    first: Instance, copy: Instance
) -> None:
    with first.connect() as ours:
        ours.create("v", "1M")
        volume = ours.open("v")
        volume.pwrite(b"f" * BLOCK, 0)
        volume.flush()

        told = refused(copy)
        assert f"pid {first.status()['pid']} on " in told
        assert "archipelago start --new-identity" in told
        copy.archipelago("start", "--new-identity")
        assert identity(copy) != identity(first)

        # The first goes on as before, and the second has a life of its own.
        volume.pwrite(b"g" * BLOCK, BLOCK)
        volume.flush()
        assert "in use" in copy.command("vlmc", "remove", "v").stderr
        with copy.connect() as theirs:
            theirs.create("w", "1M")
            with theirs.open("w") as other:
                other.pwrite(b"w" * BLOCK, 0)
                other.flush()
            volume.close()
            with theirs.open("v") as taken:
                assert taken.pread(2 * BLOCK, 0) == b"f" * BLOCK + b"g" * BLOCK
    copy.restart()  # as the same: no option is needed any more
    assert set(copy.connect_and_list()) == {"v", "w"}


def test_a_living_instance_keeps_its_identity(first: Instance) -> None:
    before = identity(first)
    assert "already running" in refused(first, "--new-identity", code=5)
    assert identity(first) == before


def test_locked_volumes_keep_the_identity(first: Instance) -> None:
    first.vlmc("create", "v", "--size", "1M")
    first.vlmc("lock", "v")
    first.stop()
    before = identity(first)
    assert 'has locked "v"' in refused(first, "--new-identity")
    first.start()
    assert identity(first) == before
    first.vlmc("unlock", "v")
    first.stop()
    first.archipelago("start", "--new-identity")
    assert identity(first) != before


def test_what_a_killed_instance_held_is_taken_over(first: Instance) -> None:
    before = identity(first)
    with first.connect() as client:
        client.create("v", "1M")
        volume = client.open("v")
        volume.pwrite(b"f" * BLOCK, 0)
        volume.flush()
        Node("first", first).kill()
        first.archipelago("start", "--new-identity")
        assert identity(first) != before
    with first.connect() as client, client.open("v") as volume:
        assert volume.pread(BLOCK, 0) == b"f" * BLOCK
