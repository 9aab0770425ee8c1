# SPDX-License-Identifier: Apache-2.0
"""The holder of a broken lease is told by the store, not by its next renewal."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

import pytest

from archipelago import LeaseLost, Volume
from tests.helpers.cluster import HANG_SECONDS, Cluster, Node, running_cluster, until
from tests.nodes.nbd import NbdDisk

MIB = 1 << 20
BLOCK = 4096
#: A third of it, after which the holder would find out by itself, is far beyond what
#: `until` waits for.
TTL = 600

assert TTL / 3 > 3 * HANG_SECONDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["together", "apart"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    placement = request.param
    with running_cluster(2, placement=placement, lease_ttl=str(TTL)) as running:
        yield running


def await_loss(volume: Volume) -> None:
    """Wait until reads say so: they ask the store nothing about the lease."""

    def told() -> bool:
        try:
            volume.pread(BLOCK, 0)
        except LeaseLost:
            return True
        return False

    until(told, "the holder is told")


def test_a_client_of_the_segment_is_told_at_once(a: Node, b: Node) -> None:
    with a.instance.connect() as ours:
        ours.create("segment", MIB)
        volume = ours.open("segment")
        volume.pwrite(b"f" * BLOCK, 0)
        volume.flush()
        b.instance.vlmc("unlock", "-f", "segment")
        await_loss(volume)
        with pytest.raises(LeaseLost):
            volume.pwrite(b"l" * BLOCK, 0)
        with contextlib.suppress(LeaseLost):
            volume.close()


def test_a_client_of_nbd_is_told_at_once(a: Node, b: Node) -> None:
    a.instance.vlmc("create", "nbd", "--size", "1M")
    with a.instance.connect() as client:
        disk = NbdDisk(client.settings.nbd_socket, "nbd")
    disk.pwrite(b"f" * BLOCK, 0)
    disk.flush()
    b.instance.vlmc("unlock", "-f", "nbd")

    def told() -> bool:
        try:
            disk.pread(BLOCK, 0)
        except OSError as error:
            assert error.errno == errno.EIO
            return True
        return False

    until(told, "the holder is told")
    late: list[Callable[[], None]] = [lambda: disk.pwrite(b"l" * BLOCK, 0), disk.flush]
    for request in late:
        with pytest.raises(OSError) as caught:
            request()
        assert caught.value.errno == errno.EIO
    disk.close()
