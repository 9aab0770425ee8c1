# SPDX-License-Identifier: Apache-2.0
"""Two instances on one store: who may change what."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import archipelago
from archipelago import Client
from archipelago.ids import ObjectId, lease_id
from archipelago.volume.incarnation import incarnation
from archipelago.volume.leases import Leases
from archipelago.volume.open import close_volume
from archipelago.volume.presence import Presences
from tests.helpers.inprocess import BLOCK, MIB, SECTOR, Running, running
from xseg.constants import ObjectKind
from xseg.payload import Lease

Pair = tuple[Running, Running, Client, Client]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two instances over the same directories, and a client of each."""
    with contextlib.ExitStack() as stack:
        instances = []
        for name in ("one", "two"):
            home = tmp_path / name
            home.mkdir()
            started = running(home, store=tmp_path, host=f"host-{name}")
            instances.append(stack.enter_context(started))
        clients = [stack.enter_context(i.connect()) for i in instances]
        clients[0].create("v", 8 * MIB, block_size=BLOCK)
        yield instances[0], instances[1], clients[0], clients[1]


def test_the_second_instance_is_told_who_has_it_and_changes_nothing(pair: Pair) -> None:
    one, _, first, second = pair
    with first.open("v") as volume:
        volume.pwrite(b"mine", 0)
        volume.flush()
        before = first.info("v", usage=False)
        for change in (
            lambda: second.open("v"),
            lambda: second.snapshot("v", "s"),
            lambda: second.resize("v", MIB),
            lambda: second.rename("v", "w"),
            lambda: second.remove("v"),
            lambda: second.lock("v"),
            lambda: second.unlock("v"),
        ):
            with pytest.raises(archipelago.LeaseHeld) as caught:
                change()
            assert str(caught.value) == (
                f'"v" is in use by host-one (instance {one.ctx.instance.hex()}, pid '
                f"{os.getpid()}): close it there, or break the lease with "
                '"vlmc unlock -f v"'
            )
            assert caught.value.exit_code == 5
            assert caught.value.retryable
        after = second.info("v", usage=False)
        assert (after.epoch, after.size, after.name) == (before.epoch, 8 * MIB, "v")
        assert [v.name for v in second.list()] == ["v"]
    with second.open("v") as volume:
        assert volume.pread(4, 0) == b"mine"
    second.remove("v")


def test_snapshots_and_read_only_opens_need_no_lease(pair: Pair) -> None:
    _, _, first, second = pair
    with first.open("v") as volume:
        volume.pwrite(b"data", 0)
        first.snapshot("v", "s")
        with second.open("s") as there, second.open("v", read_only=True) as also:
            assert there.pread(4, 0) == also.pread(4, 0) == b"data"
        with first.open("s") as here:
            assert here.pread(4, 0) == b"data"


def test_a_lock_keeps_others_out_until_it_is_undone(pair: Pair) -> None:
    _, _, first, second = pair
    lease = first.lock("v").lease
    assert lease is not None
    assert lease.locked
    assert lease.expires is None
    first.lock("v")
    with pytest.raises(archipelago.LeaseHeld, match="locked by host-one"):
        second.open("v")
    with pytest.raises(archipelago.LeaseHeld):
        second.unlock("v")
    # it is no obstacle here, and survives an open and close
    with first.open("v") as volume:
        volume.pwrite(b"x", 0)
    with pytest.raises(archipelago.LeaseHeld):
        second.open("v")
    assert first.unlock("v").lease is None
    with pytest.raises(archipelago.UsageError, match="not locked"):
        first.unlock("v")
    second.open("v").close()


def test_unlocking_an_open_volume_lets_it_go_at_its_close(pair: Pair) -> None:
    one, two, first, second = pair
    uuid = one.ctx.headers.get("v").uuid
    with first.open("v") as volume:
        first.lock("v")
        one.ctx.renewer.renew_all()
        first.unlock("v")
        # in the store at once, and nothing brings it back
        for _ in range(2):
            lease = two.ctx.leases.describe(uuid)
            assert lease is not None
            assert not lease.locked
            assert lease.expires is not None
            one.ctx.renewer.renew_all()
        with pytest.raises(archipelago.UsageError, match="open here, not locked"):
            first.unlock("v")
        volume.pwrite(b"x", 0)
        volume.flush()
        with pytest.raises(archipelago.LeaseHeld):
            second.open("v")
    second.open("v").close()


def test_a_broken_lease_ends_the_old_holders_writes(pair: Pair) -> None:
    one, _, first, second = pair
    old = first.open("v")
    old.pwrite(b"old" * 2000, 0)
    old.flush()
    epoch = first.info("v", usage=False).epoch
    second.unlock("v", force=True)
    with second.open("v") as new:
        # writes of the new holder go elsewhere
        assert second.info("v", usage=False).epoch == epoch + 1
        assert new.pread(6, 0) == b"oldold"
        new.pwrite(b"new" * 2000, 0)
        new.flush()
        # the old holder cannot make anything durable any more
        with pytest.raises(archipelago.ArchipelagoError):
            old.pwrite(b"late" * 2000, 3 * MIB)
            old.flush()
        assert new.pread(6000, 0) == b"new" * 2000
        assert new.pread(8000, 3 * MIB) == bytes(8000)
        one.ctx.renewer.renew_all()
        with pytest.raises(archipelago.ArchipelagoError):
            old.pwrite(b"later", 0)
        with contextlib.suppress(archipelago.ArchipelagoError):
            old.close()
    with second.open("v") as new:
        assert new.pread(6000, 0) == b"new" * 2000


def test_the_lease_of_a_dead_process_is_taken_over(pair: Pair) -> None:
    one, two, _, second = pair
    header = one.ctx.headers.get("v")
    # A process that took the lease and was killed.
    code = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from archipelago.messenger import Messenger\n"
        "from archipelago.objects import Store\n"
        "from archipelago.volume.incarnation import incarnation\n"
        "from archipelago.volume.leases import Leases\n"
        "from archipelago.volume.presence import Presences\n"
        "from xseg import Segment\n"
        "messenger = Messenger(Segment.attach(sys.argv[1]), 'test')\n"
        "store = Store(messenger)\n"
        "presences = Presences(store, b'x' * 16, incarnation(3600.0, 'dead'))\n"
        "presences.begin()\n"
        "leases = Leases(store, presences)\n"
        "leases.acquire(bytes.fromhex(sys.argv[2]), 'v')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, one.segment.name, header.uuid.hex()], check=False
    )
    last = Lease.unpack(one.ctx.store.read(lease_id(header.uuid), 0, Lease.LAYOUT.size))
    assert last.host == "dead"
    assert one.ctx.leases.peek(header.uuid) is None
    with second.open("v") as volume:
        volume.pwrite(b"x", 0)
        # its late writes must not reach what is read now
        assert second.info("v", usage=False).epoch == header.epoch + 1
    assert two.ctx.headers.get("v").fence > last.fence


def test_an_instance_that_restarts_takes_its_lease_back(tmp_path: Path) -> None:
    nonce = b"one run of it..."
    with (
        running(tmp_path, store=tmp_path, nonce=nonce) as first,
        first.connect() as client,
    ):
        client.create("v", 8 * MIB, block_size=BLOCK)
        volume = client.open("v")
        volume.pwrite(b"flushed", 0)
        volume.flush()
        volume.pwrite(b"unflushed", SECTOR)
        fence = first.ctx.headers.get("v").fence
        # the control half ends with the volume open, as if its process had died
    with (
        running(tmp_path, store=tmp_path, nonce=nonce) as again,
        again.connect() as client,
    ):
        header = again.ctx.headers.get("v")
        with client.open("v") as volume:
            assert volume.pread(7, 0) == b"flushed"
            assert again.ctx.headers.get("v").epoch == header.epoch
            assert again.ctx.headers.get("v").fence == fence
            uuid = header.uuid
            again.ctx.leases.abandon(uuid)  # as if this process had died, too
    # another run of the instance takes over as from any other holder
    with running(tmp_path, store=tmp_path) as later, later.connect() as client:
        assert later.ctx.leases.left(uuid) == 0
        with client.open("v") as volume:
            assert volume.pread(7, 0) == b"flushed"
            assert later.ctx.headers.get("v").fence > fence
            assert later.ctx.leases.since(uuid) <= fence


def test_space_returns_while_another_instance_is_at_work(pair: Pair) -> None:
    one, two, first, _ = pair
    with first.open("v") as volume:
        volume.pwrite(b"x" * MIB, 0)
    first.snapshot("v", "s")
    first.remove("v")
    first.remove("s")
    assert first.wait_reclaimed() > 0
    assert list(one.ctx.store.list(ObjectKind.EXTENT)) == []
    assert one.ctx.presences.others() == {two.ctx.instance}


def test_a_lease_that_was_broken_is_lost_and_opened_anew(
    instance: Running, client: Client
) -> None:
    client.create("v", MIB)
    volume = client.open("v")
    volume.pwrite(b"x", 0)
    uuid = instance.ctx.headers.get("v").uuid
    _leases(instance, b"other-----------").break_(uuid)
    instance.ctx.renewer.renew_all()
    with pytest.raises(archipelago.ArchipelagoError):
        volume.pwrite(b"y", 0)
    with contextlib.suppress(archipelago.ArchipelagoError):
        volume.close()
    # closed and opened again it works
    with client.open("v") as volume:
        volume.pwrite(b"z", 0)


def _leases(instance: Running, uuid: bytes) -> Leases:
    """Leases of another instance that is there."""
    presences = Presences(instance.ctx.store, uuid, incarnation(10.0, "h"))
    presences.begin()
    return Leases(instance.ctx.store, presences)


def test_leases_are_counted(instance: Running) -> None:
    store = instance.ctx.store
    leases = _leases(instance, b"i" * 16)
    uuid = b"v" * 16
    first = leases.acquire(uuid, "v")
    with leases.hold(uuid, "v") as second:
        assert second.fence == first.fence
    assert leases.peek(uuid) is not None
    leases.release(uuid)
    assert leases.peek(uuid) is None
    assert leases.acquire(uuid, "v").fence == first.fence + 1
    leases.forget(uuid)
    assert list(store.list(ObjectKind.LEASE)) == [
        e for e in store.list(ObjectKind.LEASE) if e.object.id[:16] != uuid
    ]
    leases.release(uuid)


def test_a_kept_lease_is_for_who_takes_it_next(pair: Pair) -> None:
    one, two, first, second = pair
    leases = one.ctx.leases
    uuid = one.ctx.headers.get("v").uuid
    assert leases.left(uuid) == 0
    # an earlier process took it, and ended without giving it back
    fence = leases.acquire(uuid, "v").fence
    leases.abandon(uuid)
    assert leases.left(uuid) == fence
    assert two.ctx.leases.left(uuid) == 0
    with pytest.raises(archipelago.LeaseLost):
        leases.keep(uuid, fence + 1)
    leases.keep(uuid, fence)
    assert dict(leases.all())[uuid].kept
    with pytest.raises(archipelago.LeaseHeld):
        second.open("v")
    with pytest.raises(archipelago.LeaseLost):
        leases.acquire(uuid, "v", fence=fence + 1)
    assert dict(leases.all())[uuid].kept
    with first.open("v"):
        assert not dict(leases.all())[uuid].kept
        assert leases.left(uuid) == fence
    second.open("v").close()  # its one user has given it back
    # broken: whoever comes next takes it anew
    fence = leases.acquire(uuid, "v").fence
    leases.abandon(uuid)
    leases.keep(uuid, fence)
    second.unlock("v", force=True)
    first.open("v").close()
    assert leases.left(uuid) == 0
    assert uuid not in dict(leases.all())


def test_who_opens_and_who_keeps_at_once_do_not_count_as_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, first, second = pair
    leases = one.ctx.leases
    uuid = one.ctx.headers.get("v").uuid
    fence = leases.acquire(uuid, "v").fence
    leases.abandon(uuid)
    # Both have seen that the lease is not held here, if they can.
    both = threading.Barrier(2)
    store = one.ctx.store
    acquire = store.acquire

    def together(target: ObjectId, lease: Lease) -> tuple[bool, Lease]:
        if target == lease_id(uuid):
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(1.0)
        return acquire(target, lease)

    monkeypatch.setattr(store, "acquire", together)
    keeps = threading.Thread(target=leases.keep, args=(uuid, fence))
    keeps.start()
    volume = first.open("v")
    keeps.join()
    monkeypatch.undo()
    # A change counts up and back; the volume stays open, and its lease held.
    first.snapshot("v", "s")
    assert leases.left(uuid) == fence
    with pytest.raises(archipelago.LeaseHeld):
        second.open("v")
    volume.pwrite(b"still", 0)
    volume.flush()
    volume.close()


def test_a_close_that_mapperd_died_over_gives_the_lease_back(pair: Pair) -> None:
    one, two, first, second = pair
    ctx = one.ctx
    volume = first.open("v")
    volume.pwrite(b"flushed", 0)
    volume.flush()
    before = ctx.headers.get("v")
    # vlmcd has flushed it, and asks the next control half, which has nothing open
    opened = ctx.table.get("v")
    assert opened is not None
    ctx.maps.close(opened.handle)
    ctx.table.remove("v")
    ctx.leases.abandon(before.uuid)
    assert ctx.leases.left(before.uuid) == before.fence
    close_volume(ctx, "v")
    assert ctx.leases.left(before.uuid) == 0
    assert first.info("v").lease is None
    # given back, so the next one need not take it over
    with second.open("v") as there:
        assert there.pread(7, 0) == b"flushed"
        assert two.ctx.headers.get("v").epoch == before.epoch
        with contextlib.suppress(archipelago.ArchipelagoError):
            volume.close()


def test_a_close_of_what_is_not_open_leaves_others_alone(pair: Pair) -> None:
    one, two, _, second = pair
    ctx = one.ctx
    close_volume(ctx, "v")
    close_volume(ctx, "no such volume")
    with second.open("v") as there:
        there.pwrite(b"x", 0)
        header = ctx.headers.get("v")
        close_volume(ctx, "v")
        there.flush()
        assert two.ctx.leases.left(header.uuid) == header.fence
    # a lease that the header does not name waits for who takes the volume over
    with ctx.leases.hold(header.uuid, "v") as lease:
        fence = lease.fence
    ctx.leases.acquire(header.uuid, "v")
    ctx.leases.abandon(header.uuid)
    close_volume(ctx, "v")
    assert ctx.leases.left(header.uuid) == fence + 1
