# SPDX-License-Identifier: Apache-2.0
"""Leases are renewed or lost in finite time, and vlmcd hears of it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from archipelago.ids import presence_id
from archipelago.messenger import Messenger
from archipelago.objects import Store
from archipelago.volume.incarnation import NS, incarnation
from archipelago.volume.leases import Leases
from archipelago.volume.presence import Presences, boottime_ns
from archipelago.volume.renewer import Renewer
from xseg import Request, Segment
from xseg.constants import PORT_BLOCKERM, PORT_VLMCD, ObjectKind, Op
from xseg.payload import Lease
from xseg.testing import EchoPeer, temporary_segment

TTL = 0.6
UUID = b"v" * 16


class Blockerm:
    """Answers as told: a store that grants, has lost what we had, or hangs."""

    def __init__(self, segment: Segment) -> None:
        self.mode = "grant"
        #: what was asked for: fences of leases, None for the presence
        self.asked: list[int | None] = []
        self.hangs = threading.Event()
        self._peer = EchoPeer(segment.name, PORT_BLOCKERM, self._serve)

    def _serve(self, rq: Request) -> int:
        if rq.op == Op.READ:
            return -errno.ENOENT
        if rq.op == Op.NOTIFY:
            return -errno.EOPNOTSUPP
        if rq.op == Op.RELEASE and self.mode == "hang":
            self.hangs.wait()
        if rq.op != Op.ACQUIRE:
            return 0
        presence = rq.object[0] == ObjectKind.PRESENCE
        asked = Lease() if presence else Lease.unpack(rq.inline)
        self.asked.append(None if presence else asked.fence)
        if self.mode == "hang":
            self.hangs.wait()
        if presence:
            return -errno.EBUSY if self.mode == "another" else 0
        if self.mode == "lost":
            return -errno.ESTALE
        rq.inline[: Lease.LAYOUT.size] = replace(asked, fence=7).pack()
        return 0

    def close(self) -> None:
        self.hangs.set()
        self._peer.close()


class Vlmcd:
    """Notes what it is told."""

    def __init__(self, segment: Segment) -> None:
        self.heard: list[tuple[Op, bytes, int]] = []
        self._some = threading.Condition()
        self._peer = EchoPeer(segment.name, PORT_VLMCD, self._serve)

    def _serve(self, rq: Request) -> int:
        with self._some:
            if rq.op in (Op.ACQUIRE, Op.RELEASE):
                self.heard.append((Op(rq.op), rq.object[1], rq.arg(1)))
            self._some.notify_all()
        return 0

    def wait(self, op: Op) -> int:
        """Wait for such a word; its deadline."""
        with self._some:
            assert self._some.wait_for(
                lambda: any(word[0] is op for word in self.heard), timeout=60
            )
            return next(word[2] for word in reversed(self.heard) if word[0] is op)

    def close(self) -> None:
        self._peer.close()


class World:
    """A renewer between a store and a vlmcd that are played."""

    def __init__(self, segment: Segment) -> None:
        self.blockerm = Blockerm(segment)
        self.vlmcd = Vlmcd(segment)
        self.messenger = Messenger(segment, "control", patience=0.2)
        store = Store(self.messenger)
        self.presences = Presences(store, b"i" * 16, incarnation(TTL, "host"))
        self.presences.begin()
        self.leases = Leases(store, self.presences)
        self.lost: list[str] = []
        self.told = threading.Event()
        self.renewer = Renewer(self.messenger, self.leases, self.presences, self._lost)
        self.leases.acquire(UUID, "v")
        self.renewer.start()

    def _lost(self, uuid: bytes, why: str) -> None:
        assert uuid == UUID
        self.lost.append(why)
        self.told.set()

    def close(self) -> None:
        self.renewer.stop()
        self.blockerm.close()
        self.vlmcd.close()
        self.messenger.close()


@pytest.fixture
def world() -> Iterator[World]:
    with temporary_segment(ports=32) as segment:
        made = World(segment)
        try:
            yield made
        finally:
            made.close()


def test_each_renewal_tells_vlmcd_the_deadline_of_the_instance(world: World) -> None:
    before = boottime_ns()
    deadline = world.vlmcd.wait(Op.ACQUIRE)
    nine_tenths = int(TTL * NS * 0.9)
    assert before + nine_tenths <= deadline <= boottime_ns() + nine_tenths
    assert deadline <= world.presences.deadline_ns()
    assert world.vlmcd.heard[0][1] == presence_id(b"i" * 16).id
    # the presence at the start, one lease, then the presence alone
    assert world.blockerm.asked[:2] == [None, 0]
    assert set(world.blockerm.asked[2:]) == {None}


def test_a_round_costs_the_same_with_one_lease_and_with_a_thousand(
    world: World,
) -> None:
    """Issue 9: ten thousand open volumes are renewed as one is."""

    def a_round() -> int:
        world.vlmcd.heard.clear()
        before = len(world.blockerm.asked)
        world.vlmcd.wait(Op.ACQUIRE)
        return len(world.blockerm.asked) - before

    with_one = max(a_round() for _ in range(3))
    for number in range(1000):
        world.leases.acquire(number.to_bytes(16, "big"), str(number))
    with_many = min(a_round() for _ in range(3))
    assert with_many <= with_one
    for number in range(1000):
        world.leases.release(number.to_bytes(16, "big"))


def test_a_lease_that_is_anothers_is_lost_at_once(world: World) -> None:
    world.blockerm.mode = "lost"
    world.renewer.renew_all()
    assert world.told.wait(60)
    assert world.lost == ["its lease was taken by another instance"]
    world.vlmcd.wait(Op.RELEASE)
    # again, until it is closed: a vlmcd that was away may have missed it
    world.vlmcd.heard.clear()
    world.vlmcd.wait(Op.RELEASE)
    world.leases.release(UUID)


def test_a_second_process_with_our_identity_ends_all_leases(world: World) -> None:
    world.blockerm.mode = "another"
    assert world.told.wait(60)
    assert world.lost == ["another process has the identity of this instance"]
    world.vlmcd.wait(Op.RELEASE)
    world.leases.release(UUID)


def test_past_the_deadline_each_lease_is_looked_at_before_vlmcd_goes_on(
    world: World,
) -> None:
    world.vlmcd.wait(Op.ACQUIRE)
    world.blockerm.mode = "lost"
    # as after a machine was suspended: the grant that is counted on is long ago
    world.presences._granted_ns -= 3600 * NS
    world.vlmcd.heard.clear()
    assert world.told.wait(60)
    world.vlmcd.wait(Op.RELEASE)
    world.vlmcd.wait(Op.ACQUIRE)
    assert 7 in world.blockerm.asked
    world.leases.release(UUID)


def test_a_store_that_hangs_loses_the_lease_when_it_could_be_over(
    world: World,
) -> None:
    granted = world.presences.deadline_ns() - int(TTL * NS * 0.9)
    world.blockerm.mode = "hang"
    assert world.told.wait(60)
    assert boottime_ns() >= granted + int(TTL * NS)
    assert world.lost == ["the store does not answer"]
    world.vlmcd.wait(Op.RELEASE)
    # the close of the volume does not wait for the store
    world.leases.release(UUID)


def test_a_question_that_hangs_does_not_put_off_the_loss(world: World) -> None:
    world.renewer.renew_all()
    granted = world.presences.deadline_ns() - int(TTL * NS * 0.9)
    world.blockerm.mode = "hang"
    asks = threading.Thread(target=world.leases.prove, args=(UUID,))
    asks.start()
    assert world.told.wait(60)
    assert boottime_ns() >= granted + int(TTL * NS)
    assert world.lost == ["the store does not answer"]
    world.vlmcd.wait(Op.RELEASE)
    world.leases.release(UUID)
    world.blockerm.hangs.set()
    asks.join()


def test_a_break_that_hangs_does_not_put_off_the_loss(world: World) -> None:
    world.blockerm.mode = "hang"
    asks = threading.Thread(target=world.leases.break_, args=(UUID,))
    asks.start()
    world.vlmcd.wait(Op.RELEASE)
    world.leases.release(UUID)
    world.blockerm.hangs.set()
    asks.join()


def test_vlmcd_being_away_is_no_error(world: World) -> None:
    world.vlmcd.close()
    world.renewer.renew_all()
    world.renewer.renew_all()
    assert world.lost == []
    assert len(world.blockerm.asked) >= 4


def test_a_lease_that_was_given_back_is_not_looked_at(world: World) -> None:
    world.leases.release(UUID)
    world.blockerm.asked.clear()
    world.renewer.renew_all()
    assert set(world.blockerm.asked) == {None}


def test_a_stop_lets_go_what_it_was_asking_about(world: World) -> None:
    world.blockerm.mode = "hang"
    asked = len(world.blockerm.asked)
    while len(world.blockerm.asked) == asked:
        world.renewer.wake()
    world.renewer.stop()
    assert world.leases.all()
    world.blockerm.hangs.set()
    world.leases.release(UUID)  # waited for ever for that answer
    assert world.leases.all() == []
