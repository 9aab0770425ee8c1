# SPDX-License-Identifier: Apache-2.0
"""Leases are renewed or lost in finite time, and vlmcd hears of it."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from archipelago.ids import lease_id
from archipelago.messenger import Messenger
from archipelago.objects import Store
from archipelago.volume.incarnation import incarnation
from archipelago.volume.leaserecord import NS
from archipelago.volume.leases import Leases, boottime_ns
from archipelago.volume.presence import Presences
from archipelago.volume.renewer import Renewer
from xseg import Request, Segment
from xseg.constants import PORT_BLOCKERM, PORT_VLMCD, ObjectKind, Op
from xseg.payload import Lease
from xseg.testing import EchoPeer, temporary_segment

TTL = 0.6
UUID = b"v" * 16


class Blockerm:
    """Answers leases as told: a store that renews, has lost them, or hangs."""

    def __init__(self, segment: Segment) -> None:
        self.mode = "grant"
        self.asked: list[int] = []
        self.hangs = threading.Event()
        self._peer = EchoPeer(segment.name, PORT_BLOCKERM, self._serve)

    def _serve(self, rq: Request) -> int:
        if rq.op == Op.READ:
            return -errno.ENOENT
        if rq.op == Op.NOTIFY:
            return -errno.EOPNOTSUPP
        if rq.op == Op.RELEASE and self.mode == "hang":
            self.hangs.wait()
        if rq.op != Op.ACQUIRE or rq.object[0] == ObjectKind.PRESENCE:
            return 0
        asked = Lease.unpack(rq.inline)
        self.asked.append(asked.fence)
        if self.mode == "hang":
            self.hangs.wait()
        if self.mode == "lost":
            return -errno.ESTALE
        expires = time.time_ns() + asked.ttl_ns
        granted = replace(asked, fence=7, expires_ns=expires)
        rq.inline[: Lease.LAYOUT.size] = granted.pack()
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
        self.leases = Leases(Store(self.messenger), b"i" * 16, TTL, "host")
        self.lost: list[str] = []
        self.told = threading.Event()
        presences = Presences(
            Store(self.messenger), b"i" * 16, incarnation(TTL, "host")
        )
        self.renewer = Renewer(self.messenger, self.leases, presences, self._lost)
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


def test_each_renewal_tells_vlmcd_the_deadline(world: World) -> None:
    before = boottime_ns()
    deadline = world.vlmcd.wait(Op.ACQUIRE)
    nine_tenths = int(TTL * NS * 0.9)
    assert before + nine_tenths <= deadline <= boottime_ns() + nine_tenths
    assert deadline <= world.leases.deadline_ns(UUID)
    assert world.vlmcd.heard[0][1] == lease_id(UUID).id
    # a renewal asks for the fence it has: it takes nothing anew
    assert world.blockerm.asked[0] == 0
    assert set(world.blockerm.asked[1:]) == {7}


def test_a_lease_that_is_anothers_is_lost_at_once(world: World) -> None:
    world.blockerm.mode = "lost"
    world.renewer.renew_all()
    assert world.told.wait(60)
    assert world.lost == ["its lease was taken by somebody else"]
    world.vlmcd.wait(Op.RELEASE)
    # again, until it is closed: a vlmcd that was away may have missed it
    world.vlmcd.heard.clear()
    world.vlmcd.wait(Op.RELEASE)
    world.leases.release(UUID)


def test_a_store_that_hangs_loses_the_lease_when_it_could_be_over(
    world: World,
) -> None:
    granted = world.leases.deadline_ns(UUID) - int(TTL * NS * 0.9)
    world.blockerm.mode = "hang"
    assert world.told.wait(60)
    assert boottime_ns() >= granted + int(TTL * NS)
    assert world.lost == ["the store does not answer"]
    world.vlmcd.wait(Op.RELEASE)
    # to close the volume nobody waits for the store
    world.leases.release(UUID)


def test_a_question_that_hangs_does_not_put_off_the_loss(world: World) -> None:
    world.renewer.renew_all()
    granted = world.leases.deadline_ns(UUID) - int(TTL * NS * 0.9)
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
    assert len(world.blockerm.asked) >= 3


def test_a_lease_that_was_given_back_is_not_renewed(world: World) -> None:
    world.leases.release(UUID)
    asked = len(world.blockerm.asked)
    world.renewer.renew_all()
    assert len(world.blockerm.asked) == asked


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
