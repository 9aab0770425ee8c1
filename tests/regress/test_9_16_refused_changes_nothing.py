# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 16: a refused call had already changed data.

The whole range is looked at first, for every call; integers are what `__index__` says.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archipelago import Client, UsageError
from archipelago.volume_handle import Volume
from tests.helpers.inprocess import MIB, running

#: Larger than two pieces of a transfer, and no multiple of a sector.
SIZE = 5 * MIB + 17
FILLED = bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256)


class Number:
    """An integer of another library, such as `numpy.int64`."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with running(tmp_path) as instance, instance.connect() as connected:
        yield connected


@pytest.fixture
def volume(client: Client) -> Iterator[Volume]:
    client.create("v", SIZE)
    with client.open("v") as opened:
        opened.pwrite(FILLED, 0)
        opened.flush()
        yield opened
        assert opened.pread(SIZE, 0) == FILLED


def wrong_calls() -> Iterator[tuple[str, Callable[[Volume], object]]]:
    yield "zero, 3 GiB", lambda v: v.zero(0, 3 << 30)
    yield "zero, one byte", lambda v: v.zero(SIZE - 4096, 4097)
    yield "zero, negative", lambda v: v.zero(-1, 10)
    yield "zero, negative size", lambda v: v.zero(10, -1)
    yield "discard", lambda v: v.discard(MIB, 3 << 30)
    yield "discard, far", lambda v: v.discard(1 << 70, 1)
    yield "pwrite, small", lambda v: v.pwrite(b"xx", SIZE - 1)
    yield "pwrite, large", lambda v: v.pwrite(bytes(3 * MIB), SIZE - 3 * MIB + 1)
    yield "pwrite, negative", lambda v: v.pwrite(b"x", -1)
    yield "pwrite, far", lambda v: v.pwrite(b"x", 1 << 64)
    yield "pwrite, nothing behind the end", lambda v: v.pwrite(b"", SIZE + 1)
    yield "pread, small", lambda v: v.pread(2, SIZE - 1)
    yield "pread, large", lambda v: v.pread(3 * MIB, SIZE - 3 * MIB + 1)
    yield "pread, huge", lambda v: v.pread(1 << 50, 0)
    yield "pread, negative", lambda v: v.pread(-1, 0)
    yield "pread_into", lambda v: v.pread_into(bytearray(3 * MIB), SIZE - MIB)
    yield "extents", lambda v: v.extents(0, SIZE + 1)
    yield "extents, negative", lambda v: v.extents(-1, 4096)


CALLS = dict(wrong_calls())


@pytest.mark.parametrize("call", CALLS)
def test_a_range_outside_the_volume_is_refused_whole(volume: Volume, call: str) -> None:
    with pytest.raises(UsageError, match="do not lie in the volume"):
        CALLS[call](volume)


@pytest.mark.parametrize("offset", [SIZE - 1, SIZE, 1 << 62])
def test_buffers_and_queues_change_nothing_either(volume: Volume, offset: int) -> None:
    with volume.buffer(4096) as buffer, volume.queue(4) as queue:
        for call in (volume.write_buffer, volume.read_buffer):
            with pytest.raises(UsageError, match="do not lie in the volume"):
                call(buffer, offset)
            with pytest.raises(UsageError, match="do not lie in a buffer"):
                call(buffer, 0, 4097)
        queue.write(buffer, offset, tag="w")
        queue.read(buffer, offset, tag="r")
        found = dict(queue.wait(2))
        assert found == {"w": -errno.EINVAL, "r": -errno.EINVAL}
        for start, length, where in (
            (0, 4097, 0),
            (1, 4096, 0),
            (-1, 1, 0),
            (0, 1, -1),
        ):
            for begin in (queue.read, queue.write):
                with pytest.raises(UsageError):
                    begin(buffer, where, start=start, length=length)
        assert len(queue) == 0
        # None of the queue's requests was lost by that.
        for index in range(4):
            queue.read(buffer, 0, tag=index)
        assert sorted(tag for tag, _ in queue.wait(4)) == [0, 1, 2, 3]


def test_integers_of_other_libraries_are_integers(client: Client) -> None:
    client.create("n", Number(2 * MIB))
    client.resize("n", Number(4 * MIB))
    with client.open("n") as volume, volume.buffer(Number(4096)) as buffer:
        assert volume.size == 4 * MIB
        volume.pwrite(b"data", Number(MIB))
        assert volume.pread(Number(4), Number(MIB)) == b"data"
        assert volume.pread(Number(2 * MIB), Number(MIB))[:4] == b"data"
        volume.read_buffer(buffer, Number(MIB), Number(512))
        volume.zero(Number(MIB), Number(2))
        volume.discard(Number(0), Number(512))
        with volume.queue(Number(2)) as queue:
            queue.read(buffer, Number(MIB), start=Number(8), length=Number(4))
            assert [result for _, result in queue.wait()] == [4]
        with memoryview(buffer) as view:
            assert view[8:12].tobytes() == b"\0\0ta"
        runs = volume.extents(Number(0), Number(MIB))
        assert sum(run.size for run in runs) == MIB
    for size in (1.5, True, None, b"1"):
        with pytest.raises(UsageError):
            client.resize("n", size)  # type: ignore[arg-type]
