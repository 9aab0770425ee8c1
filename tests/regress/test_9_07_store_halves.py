# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 7: an empty store was made where a full one should have been."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.instance import Instance


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    made = Instance(tmp_path / "home")
    made.home.mkdir()
    yield made
    made.stop()


def store(instance: Instance) -> Path:
    return instance.home / "store"


def filled(instance: Instance) -> str:
    """Leave a stopped instance with one volume; the uuid of its store."""
    instance.start()
    instance.vlmc("create", "v", "--size", "1M")
    instance.stop()
    uuids = {
        (store(instance) / half / "store").read_text() for half in ("data", "maps")
    }
    assert len(uuids) == 1
    return uuids.pop().split()[-1]


def refused(instance: Instance) -> str:
    done = instance.command("archipelago", "start")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("half, other", [("maps", "data"), ("data", "maps")])
def test_an_unmounted_half_is_refused(
    instance: Instance, half: str, other: str
) -> None:
    uuid = filled(instance)
    (store(instance) / half).rename(store(instance) / "elsewhere")
    message = refused(instance)
    assert f"{half}_path '{store(instance)}/{half}' is empty" in message
    assert (
        f"{other}_path '{store(instance)}/{other}', belongs to store {uuid}" in message
    )
    assert not (store(instance) / half).exists()
    (store(instance) / "elsewhere").rename(store(instance) / half)
    instance.start()
    assert "v" in instance.vlmc("list")


def test_both_halves_unmounted_are_refused_until_init(instance: Instance) -> None:
    uuid = filled(instance)
    for half in ("data", "maps"):
        (store(instance) / half).rename(store(instance) / f"old-{half}")
        (store(instance) / half).mkdir()
    assert f"this instance served store {uuid}" in refused(instance)
    instance.archipelago("init")
    instance.start()
    assert "v" not in instance.vlmc("list")


def test_halves_of_two_stores_are_refused(instance: Instance, tmp_path: Path) -> None:
    uuid = filled(instance)
    other = Instance(tmp_path / "other")
    other.home.mkdir()
    foreign = filled(other)
    shutil.rmtree(store(instance) / "maps")
    shutil.copytree(store(other) / "maps", store(instance) / "maps")
    message = refused(instance)
    assert f"belongs to store {uuid}, but maps_path" in message
    assert foreign in message


def test_a_store_without_a_uuid_is_named(instance: Instance) -> None:
    filled(instance)
    for half in ("data", "maps"):
        (store(instance) / half / "store").unlink()
    (store(instance) / "store").unlink()
    uuid = filled_again(instance)
    # As a start leaves it that was killed between the two halves.
    (store(instance) / "maps" / "store").unlink()
    (store(instance) / "data" / "store").rename(store(instance) / "data/store.joining")
    assert filled_again(instance) == uuid
    # One half has lost its name: this cannot be told from another store's.
    (store(instance) / "maps" / "store").unlink()
    assert "'cp " in refused(instance)


def filled_again(instance: Instance) -> str:
    instance.start()
    assert "v" in instance.vlmc("list")
    instance.stop()
    return (store(instance) / "data" / "store").read_text()


def test_init_leaves_a_store_alone(instance: Instance) -> None:
    uuid = filled(instance)
    done = instance.command("archipelago", "init")
    assert done.returncode == 4
    assert uuid in done.stderr
    instance.start()
    assert "v" in instance.vlmc("list")
    assert instance.command("archipelago", "init").returncode != 0
