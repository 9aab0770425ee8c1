# SPDX-License-Identifier: Apache-2.0
"""What two nodes on one store say to who asks, one situation at a time."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

import pytest

import archipelago
from archipelago import Client
from tests.helpers.cluster import Cluster, Node, running_cluster, until
from tests.integration.killing import check_answered, write_and_die

MIB = 1 << 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["together", "apart"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster(2, placement=request.param, lease_ttl="2") as running:
        yield running


@pytest.fixture
def ours(a: Node) -> Iterator[Client]:
    with a.instance.connect() as client:
        yield client


@pytest.fixture
def theirs(b: Node) -> Iterator[Client]:
    with b.instance.connect() as client:
        yield client


def lease_of(node: Node, name: str) -> dict[str, object] | None:
    lease = json.loads(node.instance.vlmc("info", "--json", name))["lease"]
    assert lease is None or isinstance(lease, dict)
    return lease


def refused(node: Node, *args: str, exit_code: int, words: str) -> None:
    done = node.instance.command("vlmc", *args)
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    assert re.fullmatch(f"vlmc: {words}\n", done.stderr), done.stderr


def test_both_nodes_name_holder_fence_and_expiry(a: Node, b: Node) -> None:
    a.instance.vlmc("create", "named", "--size", "8M")
    assert lease_of(b, "named") is None
    a.instance.vlmc("open", "named")
    lease = lease_of(b, "named")
    assert lease is not None
    owner = (a.home / "store" / "instance").read_text().strip().replace("-", "")
    assert (lease["owner"], lease["pid"]) == (owner, a.supervisor)
    assert (lease["fence"], lease["locked"]) == (1, False)
    words = (
        rf"in use by   pid {lease['pid']} on \S+ \(instance {owner}, fence 1, until "
        r"\d{4}-\d\d-\d\dT\S+Z\)"
    )
    for node in (a, b):
        assert re.search(words, node.instance.vlmc("info", "named"))
    a.instance.vlmc("close", "named")
    assert lease_of(a, "named") is None
    b.instance.vlmc("open", "named")
    later = lease_of(a, "named")
    assert later is not None
    assert (later["fence"], later["owner"] != owner) == (2, True)
    b.instance.vlmc("close", "named")


def test_an_idle_volume_stays_its_holders_when_mapperd_dies(
    a: Node, b: Node, ours: Client
) -> None:
    ours.create("idle", 8 * MIB)
    with ours.open("idle") as volume:
        volume.pwrite(b"x" * 4096, 0)
        before = lease_of(b, "idle")
        assert before is not None
        a.kill_peer("mapperd")

        # Nobody asks for I/O: its next process must learn of it all the same.
        def renewed() -> bool:
            lease = lease_of(b, "idle")
            return lease is not None and str(lease["expires"]) > str(before["expires"])

        refused(b, "open", "idle", exit_code=5, words='"idle" is in use by .*')
        until(renewed, "the next mapperd renews the lease")
        refused(b, "open", "idle", exit_code=5, words='"idle" is in use by .*')
        if a.instance.settings["placement"] == "apart":  # else vlmcd died too
            refused(a, "remove", "idle", exit_code=5, words='"idle" is .*')
        assert volume.pread(4096, 0) == b"x" * 4096
        lease = lease_of(b, "idle")
        assert lease is not None
        assert lease["fence"] == before["fence"]
    ours.remove("idle")


def test_answered_writes_outlive_a_death_that_ended_their_writer_too(
    a: Node, b: Node, rng: random.Random
) -> None:
    a.instance.vlmc("create", "left", "--size", "8M")
    write_and_die(a.instance, "left", rng)
    # Nobody comes back for it on this node.  It goes to who wants it, but whole.
    refused(b, "open", "left", exit_code=5, words='"left" is in use by .*')

    def can_open() -> bool:
        return b.instance.command("vlmc", "open", "left").returncode == 0

    until(can_open, "the lease is given back")
    check_answered(b.instance, "left")
    b.instance.vlmc("close", "left")


def test_who_does_not_hold_it_changes_nothing(a: Node, b: Node) -> None:
    a.instance.vlmc("create", "mine", "--size", "8M")
    a.instance.vlmc("open", "mine")
    words = (
        r'"mine" is in use by \S+ \(instance [0-9a-f]{32}, pid \d+\): close it there, '
        r'or break the lease with "vlmc unlock -f mine"'
    )
    for args in (
        ["open", "mine"],
        ["lock", "mine"],
        ["unlock", "mine"],
        ["snapshot", "mine", "s"],
        ["resize", "mine", "--size", "4M"],
        ["rename", "mine", "yours"],
        ["remove", "mine"],
    ):
        refused(b, *args, exit_code=5, words=words)
    refused(
        b,
        "close",
        "mine",
        exit_code=2,
        words='"mine" is not held open: there is nothing to close',
    )
    a.instance.vlmc("close", "mine")
    b.instance.vlmc("remove", "mine")


def test_a_broken_lease_is_free_at_once_and_its_holder_is_told(
    a: Node, b: Node, ours: Client, theirs: Client
) -> None:
    ours.create("broken", 8 * MIB)
    volume = ours.open("broken")
    volume.pwrite(b"flushed", 0)
    volume.flush()
    b.instance.vlmc("unlock", "-f", "broken")
    b.instance.vlmc("open", "broken")

    def told() -> bool:
        try:
            volume.pwrite(b"late", 0)
        except archipelago.LeaseLost as error:
            assert "close it, then open it again" in str(error)
            return True
        return False

    until(told, "the old holder is told")
    with pytest.raises(archipelago.LeaseLost):
        volume.flush()
    with pytest.raises(archipelago.LeaseLost):
        volume.pread(4, 0)
    with pytest.raises(archipelago.LeaseHeld):
        ours.snapshot("broken", "late")
    with theirs.open("broken") as new:
        assert new.pread(7, 0) == b"flushed"
        new.pwrite(b"anew", 0)
    try:
        volume.close()
    except archipelago.LeaseLost as error:
        assert "broken" in str(error)
    b.instance.vlmc("close", "broken")
    with ours.open("broken") as again:
        assert again.pread(7, 0) == b"anewhed"


def test_a_volume_held_open_by_hand_can_be_closed_after_it_was_lost(
    a: Node, b: Node
) -> None:
    a.instance.vlmc("create", "held", "--size", "8M")
    a.instance.vlmc("open", "held")
    b.instance.vlmc("unlock", "-f", "held")
    b.instance.vlmc("open", "held")
    lease = lease_of(a, "held")
    assert lease is not None
    assert lease["pid"] == b.supervisor
    done = a.instance.command("vlmc", "close", "held")
    assert done.returncode == 2, done.stderr
    assert '"held" is not held open' in done.stderr
    b.instance.vlmc("close", "held")
    a.instance.vlmc("open", "held")
    a.instance.vlmc("close", "held")


def test_a_lock_keeps_other_nodes_out_until_it_is_broken(a: Node, b: Node) -> None:
    a.instance.vlmc("create", "locked", "--size", "8M")
    a.instance.vlmc("lock", "locked")
    words = r'"locked" is locked by .*'
    refused(b, "open", "locked", exit_code=5, words=words)
    refused(b, "unlock", "locked", exit_code=5, words=words)
    a.instance.restart()
    lease = lease_of(b, "locked")
    assert lease is not None
    assert (lease["locked"], lease["expires"]) == (True, None)
    refused(b, "open", "locked", exit_code=5, words=words)
    a.instance.vlmc("open", "locked")
    a.instance.vlmc("close", "locked")
    b.instance.vlmc("unlock", "-f", "locked")
    b.instance.vlmc("open", "locked")
    refused(a, "open", "locked", exit_code=5, words=r'"locked" is in use by .*')
    b.instance.vlmc("close", "locked")


def test_a_snapshot_is_read_on_both_nodes_while_its_volume_is_written(
    a: Node, b: Node, ours: Client, theirs: Client
) -> None:
    ours.create("source", 8 * MIB)
    with ours.open("source") as volume:
        volume.pwrite(b"first", MIB)
        ours.snapshot("source", "image")
        with theirs.open("image") as there, ours.open("image") as here:
            for text in (b"other", b"third"):
                volume.pwrite(text, MIB)
                volume.flush()
                assert there.pread(5, MIB) == here.pread(5, MIB) == b"first"
            assert lease_of(b, "image") is None
        theirs.create("copy", snap="image")
        with theirs.open("copy") as copy:
            assert copy.pread(5, MIB) == b"first"


def test_a_clean_stop_leaves_no_lease(cluster: Cluster, a: Node, b: Node) -> None:
    for number, node in enumerate(cluster.nodes):
        node.instance.vlmc("create", f"stop{number}", "--size", "8M")
        node.instance.vlmc("open", f"stop{number}")
    assert cluster.held_leases()
    a.instance.stop()
    assert lease_of(b, "stop0") is None
    b.instance.vlmc("open", "stop0")
    b.instance.stop()
    assert cluster.held_leases() == []
    a.start()
    b.start()
