# SPDX-License-Identifier: Apache-2.0
"""What the Archipelago of 2010-2015 left to its administrators, and ours does itself.

The numbers are those of the list that the project started from: 1.7 are procedures that
had to be done by hand, 1.8 defects that its authors knew of, 1.9 defects found by
reading (``test_original_defects.py`` has those that need no second node).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import archipelago
from tests.helpers.cluster import Cluster, Node, running_cluster, until
from tests.helpers.inprocess import running

MIB = 1 << 20
TTL = "2"
#: How often peers are killed in the midst of something, each time this much later [s].
DEATHS = 8
DEATH_STEP = 0.01


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(2, backend="file", lease_ttl=TTL) as started:
        yield started


def write(node: Node, name: str, data: bytes) -> None:
    with node.instance.connect() as client, client.open(name) as volume:
        volume.pwrite(data, 0)
        volume.flush()


def read(node: Node, name: str, size: int) -> bytes:
    with node.instance.connect() as client:
        with client.open(name, read_only=True) as volume:
            return bytes(volume.pread(size, 0))


@contextlib.contextmanager
def in_use(node: Node, name: str, data: bytes) -> Iterator[archipelago.Volume]:
    """A volume of 8 MiB that a node has open, with flushed data."""
    with node.instance.connect() as client:
        client.create(name, 8 * MIB)
        volume = client.open(name)
        volume.pwrite(data, 0)
        volume.flush()
        try:
            yield volume
        finally:
            # Its node may be gone, or have lost it: that is what is tested.
            with contextlib.suppress(archipelago.ArchipelagoError, OSError):
                volume.close()


def test_1_7_locks_of_a_dead_node_are_not_in_the_way(cluster: Cluster) -> None:
    one, two = cluster.nodes
    with in_use(one, "dead", b"flushed"):
        one.kill()
        # no command for the lock, and on one machine nothing to wait for
        write(two, "dead", b"F")
    assert read(two, "dead", 7) == b"Flushed"
    # nor is anything to be cleared away before the node starts again
    one.start()
    write(one, "dead", b"f")
    assert read(one, "dead", 7) == b"flushed"


@pytest.mark.parametrize("role", ["blockerb", "blockerm", "mapperd", "vlmcd"])
def test_1_7_a_dead_peer_needs_nobody(cluster: Cluster, role: str) -> None:
    node = cluster.nodes[0]
    node.instance.vlmc("create", f"peer-{role}", "--size", "8M")
    write(node, f"peer-{role}", b"before")
    node.kill_peer(role)
    write(node, f"peer-{role}", b"after!")
    assert read(node, f"peer-{role}", 6) == b"after!"


def test_1_8_a_broken_lock_is_noticed_by_its_holder(cluster: Cluster) -> None:
    one, two = cluster.nodes
    with in_use(one, "broken", b"flushed") as volume:
        two.instance.vlmc("unlock", "-f", "broken")

        def noticed() -> bool:
            try:
                volume.pwrite(b"late", 4096)
            except archipelago.LeaseLost:
                return True
            return False

        until(noticed, "the holder notices")
        write(two, "broken", b"F")
        with pytest.raises(archipelago.LeaseLost):
            volume.flush()
    assert read(two, "broken", 7) == b"Flushed"


def test_1_8_locks_expire_and_who_slept_changes_nothing(cluster: Cluster) -> None:
    one, two = cluster.nodes
    with in_use(one, "expires", b"flushed") as volume:
        one.pause()
        try:

            def free() -> bool:
                with contextlib.suppress(archipelago.LeaseHeld):
                    write(two, "expires", b"F")
                    return True
                return False

            until(free, "the lease of a paused node runs out")
        finally:
            one.resume()
        with pytest.raises(archipelago.LeaseLost):
            volume.pwrite(b"late", 0)
            volume.flush()
    assert read(two, "expires", 7) == b"Flushed"


def test_1_8_a_release_that_fails_at_close_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as instance, instance.connect() as client:
        ctx = instance.ctx
        client.create("v", MIB)
        volume = client.open("v")
        volume.pwrite(b"flushed", 0)

        def fail(extent: object) -> None:
            raise archipelago.IoError("the extent is not given up")

        with monkeypatch.context() as patched:
            patched.setattr(ctx.store, "release_extent", fail)
            with pytest.raises(archipelago.IoError, match=r"flushed.* lease runs out"):
                volume.close()
        # it is closed, and what was written is safe; the lease is there until it ends
        assert '"v" is closed, but not given back: the extent is not' in caplog.text
        lease = client.info("v").lease
        assert lease is not None
        assert lease.owner == ctx.instance.hex()
        with client.open("v") as volume:
            assert volume.pread(7, 0) == b"flushed"
        assert client.info("v").lease is None


def test_1_9_8_a_rename_elsewhere_leaves_a_paused_node_one_name(
    cluster: Cluster,
) -> None:
    one, two = cluster.nodes
    with in_use(one, "old-name", b"flushed"):
        one.pause()
        try:
            until(
                lambda: (
                    two.instance.command(
                        "vlmc", "rename", "old-name", "new-name"
                    ).returncode
                    == 0
                ),
                "the name can be changed elsewhere",
            )
        finally:
            one.resume()
    for node in (one, two):
        with node.instance.connect() as client:
            found = [v.name for v in client.list() if v.name.endswith("-name")]
        assert found == ["new-name"]
    assert read(one, "new-name", 7) == b"flushed"


def dying(node: Node, delay: float, deed: Callable[[int], object]) -> int:
    """Do something again and again while mapperd and control are killed.

    Args:
        node: whose peers they are.
        delay: before they are [s].
        deed: told how often it was done before.

    Returns:
        How often it was done; the next one may have failed.
    """
    killer = threading.Timer(delay, os.kill, (node.peers()["mapperd"], signal.SIGKILL))
    killer.start()
    done = 0
    try:
        with contextlib.suppress(archipelago.ArchipelagoError):
            while killer.is_alive():
                deed(done)
                done += 1
    finally:
        killer.join()
    return done


def test_1_9_8_peers_that_die_in_a_rename_leave_one_name(cluster: Cluster) -> None:
    one, two = cluster.nodes
    names = ("flip-a", "flip-b")
    with one.instance.connect() as client, two.instance.connect() as other:
        client.create(names[0], 8 * MIB)
        uuid = client.info(names[0]).uuid
        write(one, names[0], b"renamed")
        at = 0
        for i in range(DEATHS):
            start = at
            # every second one is open, and goes through vlmcd
            user = client.open(names[at]) if i % 2 else contextlib.nullcontext()
            with user:
                done = dying(
                    one,
                    (i + 1) * DEATH_STEP,
                    lambda n, start=start: client.rename(  # type: ignore[misc]
                        names[(start + n) % 2], names[(start + n + 1) % 2]
                    ),
                )
                seen = {
                    v.name: v.uuid for v in client.list() if v.name.startswith("flip-")
                }
                # one name, the old or the new one, on every node
                assert list(seen.values()) == [uuid]
                (name,) = seen
                assert [v.name for v in other.list() if v.name.startswith("flip-")] == [
                    name
                ]
                assert name in (
                    names[(start + done) % 2],
                    names[(start + done + 1) % 2],
                )
                at = names.index(name)
                assert read(one, name, 7) == b"renamed"

        def free() -> bool:
            with contextlib.suppress(archipelago.LeaseHeld):
                write(two, names[at], b"R")
                return True
            return False

        until(free, "the lease of the last one that died runs out")
        assert read(one, names[at], 7) == b"Renamed"


def test_1_9_8_peers_that_die_in_a_snapshot_leave_all_or_nothing(
    cluster: Cluster,
) -> None:
    one, two = cluster.nodes
    content: dict[str, bytes] = {}
    with one.instance.connect() as client:
        client.create("shots", 8 * MIB)
        for i in range(DEATHS):

            def shoot(n: int, i: int = i) -> None:
                data = f"{i:04}-{n:04}".encode()
                write(one, "shots", data)
                content[f"shot-{i}-{n}"] = data
                client.snapshot("shots", f"shot-{i}-{n}")

            done = dying(one, (i + 1) * DEATH_STEP, shoot)
            there = {v.name for v in client.list() if v.name.startswith(f"shot-{i}-")}
            whole = {f"shot-{i}-{n}" for n in range(done)}
            # those that were answered, and maybe the one that was not
            assert whole <= there <= whole | {f"shot-{i}-{done}"}
            for name in there:
                assert read(one, name, 9) == read(two, name, 9) == content[name]
                assert client.info(name).read_only
        write(one, "shots", b"goes on")
        for name in {v.name for v in client.list() if v.name.startswith("shot-")}:
            assert read(one, name, 9) == content[name]
            client.remove(name)
        assert read(one, "shots", 7) == b"goes on"


def test_1_9_10_a_snapshot_is_open_on_two_nodes_at_once(cluster: Cluster) -> None:
    one, two = cluster.nodes
    one.instance.vlmc("create", "origin", "--size", "8M")
    write(one, "origin", b"shared")
    one.instance.vlmc("snapshot", "origin", "shot")
    with (
        one.instance.connect() as first,
        two.instance.connect() as second,
        first.open("shot") as here,
        second.open("shot") as there,
    ):
        for volume in (here, there, here):
            assert volume.pread(6, 0) == b"shared"
        assert second.info("shot").lease is None


def test_1_9_11_only_one_of_two_gets_a_lock(cluster: Cluster) -> None:
    one, two = cluster.nodes
    one.instance.vlmc("create", "contended", "--size", "8M")
    one.instance.vlmc("lock", "contended")
    assert two.instance.command("vlmc", "lock", "contended").returncode == 5
    assert two.instance.command("vlmc", "unlock", "contended").returncode == 5
    # a lock outlives its node, even killed; only force or its owner ends it
    one.kill()
    assert two.instance.command("vlmc", "lock", "contended").returncode == 5
    one.start()
    one.instance.vlmc("unlock", "contended")
    two.instance.vlmc("lock", "contended")
    one.instance.vlmc("unlock", "-f", "contended")
    write(one, "contended", b"x")


def test_1_9_11_who_closes_late_leaves_the_lease_of_another_alone(
    cluster: Cluster,
) -> None:
    one, two = cluster.nodes
    with in_use(one, "taken", b"flushed") as old, two.instance.connect() as other:
        two.instance.vlmc("unlock", "-f", "taken")
        with other.open("taken") as volume:
            volume.pwrite(b"F", 0)
            volume.flush()
            taken = other.info("taken").lease
            assert taken is not None
            with contextlib.suppress(archipelago.ArchipelagoError):
                old.close()
            # nor does closing it by hand, or what runs there in the background
            one.instance.command("vlmc", "close", "taken")
            now = other.info("taken").lease
            assert now is not None
            assert (now.owner, now.fence) == (taken.owner, taken.fence)
            with one.instance.connect() as client:
                with pytest.raises(archipelago.LeaseHeld):
                    client.open("taken")
            volume.pwrite(b"L", 1)
            volume.flush()
        assert other.info("taken").lease is None
    assert read(one, "taken", 7) == b"FLushed"


def test_1_7_a_lock_that_was_undone_does_not_outlive_its_node(cluster: Cluster) -> None:
    one, two = cluster.nodes
    with in_use(one, "undone", b"flushed"):
        one.instance.vlmc("lock", "undone")
        refused = two.instance.command("vlmc", "open", "undone")
        assert "locked" in refused.stderr
        one.instance.vlmc("unlock", "undone")
        one.kill()
        write(two, "undone", b"F")
    one.start()
    assert read(one, "undone", 7) == b"Flushed"
