# SPDX-License-Identifier: Apache-2.0
"""Issue 9, faults 6 and 14: ports and buffers ran out, and calls failed for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from archipelago import Client
from archipelago.errors import BackendUnavailable, NotAnswering
from archipelago.messenger import Call, Messenger
from tests.helpers.inprocess import Running, running
from xseg import Segment
from xseg.constants import PORT_CONTROL, PORT_DYNAMIC, Op
from xseg.errors import SegmentFull

MIB = 1 << 20
NR_THREADS = 80
NR_CLIENTS = 1000


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def client(instance: Running) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


def test_there_is_room_for_a_thousand_clients(client: Client) -> None:
    statistics = client.segment.statistics()
    assert statistics.nr_ports - PORT_DYNAMIC > NR_CLIENTS
    assert statistics.size_bytes - statistics.heap_bytes < 16 * MIB


def test_eighty_threads_ask_at_once(client: Client) -> None:
    start = threading.Barrier(NR_THREADS)

    def work(number: int) -> str:
        start.wait()
        client.create(f"thread-{number}", MIB)
        return client.info(f"thread-{number}").name

    with ThreadPoolExecutor(NR_THREADS) as pool:
        names = set(pool.map(work, range(NR_THREADS)))
    assert names == {f"thread-{number}" for number in range(NR_THREADS)}


def test_no_free_port_is_one_clear_error(client: Client) -> None:
    with Segment.attach(client.segment.name) as other:
        taken = []
        with pytest.raises(SegmentFull, match="all 1024 ports"):
            while True:
                taken.append(other.bind())
        messenger = Messenger(other, "late", patience=0.05)
        with pytest.raises(BackendUnavailable, match=r"raise segment\.ports"):
            messenger.call(PORT_CONTROL, Op.PING)
        taken.pop().unbind()
        assert messenger.call(PORT_CONTROL, Op.PING).result == 0
        messenger.close()
        for port in taken:
            port.unbind()


def test_a_listing_needs_no_block_of_the_largest_size(client: Client) -> None:
    client.create("listed", MIB)
    with Segment.attach(client.segment.name) as other:
        held = []
        with pytest.raises(SegmentFull):
            while True:
                held.append(other.alloc(4 * MIB))
        assert "listed" in {volume.name for volume in client.list()}
        for buffer in held:
            buffer.free()


def test_a_queue_says_what_it_cannot_have(client: Client) -> None:
    client.create("queued", MIB)
    with (
        client.open("queued") as volume,
        Segment.attach(client.segment.name) as other,
        other.bind() as port,
    ):
        held = []
        with pytest.raises(SegmentFull):
            while True:
                held.append(port.request())
        for rq in [held.pop() for _ in range(100)]:
            rq.free()
        with pytest.raises(BackendUnavailable, match="smaller depth"):
            volume.queue(1024)
        for rq in held:
            rq.free()
        with volume.queue(16) as queue:
            queue.flush()
            assert [result for _, result in queue.wait()] == [0]


def test_a_peer_that_hangs_ends_many_calls(client: Client) -> None:
    class Hung:
        """Finds every peer hung."""

        def of_stopped(self, dst: int) -> None:
            return None

        def of_hung(self, dst: int) -> NotAnswering:
            return NotAnswering(f"port {dst} does not answer")

    with Segment.attach(client.segment.name) as other, other.bind() as silent:
        messenger = Messenger(other, "asks", patience=0.0, explains=Hung())
        calls = [Call(silent.id, Op.PING) for _ in range(3)]
        with pytest.raises(NotAnswering, match="does not answer"):
            messenger.send_many(calls)
        # Replies that come late belong to no call of later.
        while (rq := silent.accept()) is not None:
            silent.complete(rq, 0)
        many = messenger.send_many([Call(PORT_CONTROL, Op.PING) for _ in range(3)])
        assert [reply.result for reply in many] == [0, 0, 0]
        messenger.close()
