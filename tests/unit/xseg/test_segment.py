# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import os
import stat
import uuid
import warnings

import pytest

import xseg
from xseg import Segment
from xseg.constants import BUFFER_MAX_BYTES, PAGE_BYTES
from xseg.testing import temporary_segment, unique_name

HEAP = 16 << 20


def test_a_segment_is_created_attached_and_destroyed() -> None:
    name = unique_name()
    with Segment.create(name, ports=32, requests=128, heap_bytes=HEAP) as made:
        assert made.name == name
        assert name in xseg.segments()
        with Segment.attach(name) as joined:
            assert joined.statistics() == made.statistics()
        mode = os.stat(f"/dev/shm/{name}").st_mode
        assert stat.S_IMODE(mode) == 0o660
    Segment.destroy(name)
    assert name not in xseg.segments()


def test_statistics_tell_sizes_and_use(segment: Segment) -> None:
    before = segment.statistics()
    assert before.nr_requests == before.nr_free_requests == 64
    assert before.heap_bytes == HEAP
    assert before.heap_used_bytes == before.nr_used_buffers == 0
    assert before.creator_pid == os.getpid()
    assert uuid.UUID(before.uuid).int != 0
    with segment.alloc(5000), segment.bind() as port, port.request():
        during = segment.statistics()
        assert during.nr_used_buffers == 1
        assert during.heap_used_bytes == 8192
        assert during.nr_free_requests == 63
    assert segment.statistics() == before


def test_a_name_can_be_taken_once(segment: Segment) -> None:
    with pytest.raises(xseg.AlreadyExists, match=segment.name):
        Segment.create(segment.name)


def test_a_missing_segment_is_named() -> None:
    with pytest.raises(xseg.NotFound, match="nobody-made-this"):
        Segment.attach("nobody-made-this")
    with pytest.raises(xseg.NotFound, match="nobody-made-this"):
        Segment.destroy("nobody-made-this")


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "x" * 201, "a b", "a\0b"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(xseg.InvalidArgument):
        Segment.create(name)


@pytest.mark.parametrize(
    "sizes",
    [
        {"requests": 100},
        {"requests": 1 << 17},
        {"ports": 5000},
        {"heap_bytes": (16 << 20) + 1},
        {"heap_bytes": -1},
        {"ports": 1 << 40},
    ],
)
def test_bad_sizes_are_refused(sizes: dict[str, int]) -> None:
    name = unique_name()
    with pytest.raises(xseg.InvalidArgument):
        Segment.create(name, **sizes)
    assert name not in xseg.segments()


def test_files_that_are_no_segments_are_not_listed(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "other")
    with open(path, "wb") as file:
        file.write(b"ACPXSEG2")
    assert xseg.segments(tmp_path) == []
    assert xseg.segments(os.path.join(tmp_path, "absent")) == []
    with open(path, "wb") as file:
        file.write(b"ACPXSEG1")
    assert xseg.segments(tmp_path) == ["other"]


def test_a_damaged_segment_is_refused() -> None:
    with temporary_segment() as segment:
        with open(f"/dev/shm/{segment.name}", "r+b") as file:
            file.write(b"ACPXSEG1\x63")
        with pytest.raises(xseg.FormatMismatch):
            Segment.attach(segment.name)


def test_there_is_no_constructor() -> None:
    for kind in (Segment, xseg.Buffer, xseg.Request):
        with pytest.raises(TypeError):
            kind()


def test_closing_twice_is_harmless_and_use_after_it_an_error() -> None:
    with temporary_segment() as segment:
        segment.close()
        segment.close()
        assert segment.closed
        assert "closed" in repr(segment)
        for use in (segment.statistics, segment.bind, segment.ports, segment.reap):
            with pytest.raises(xseg.ClosedError, match=segment.name):
                use()


def test_closing_takes_ports_requests_and_buffers_along() -> None:
    with temporary_segment() as owner:
        joined = Segment.attach(owner.name)
        port = joined.bind()
        request = port.request()
        buffer = joined.alloc(4096)
        joined.close()
        assert port.closed and buffer.closed
        request.free()
        buffer.free()
        with pytest.raises(xseg.ClosedError):
            _ = request.op
        with pytest.raises(xseg.ClosedError):
            memoryview(buffer)
        left = owner.statistics()
        assert left.nr_used_buffers == 0
        assert left.nr_free_requests == left.nr_requests
        assert owner.ports() == []


def test_a_memoryview_keeps_the_segment_open() -> None:
    with temporary_segment() as segment:
        buffer = segment.alloc(10)
        view = memoryview(buffer)
        with pytest.raises(BufferError, match="1 memoryviews"):
            segment.close()
        view.release()


def test_dropping_a_segment_warns_and_closes_it() -> None:
    with temporary_segment() as owner:
        with pytest.warns(ResourceWarning, match="unclosed segment"):
            Segment.attach(owner.name)
            gc.collect()


def test_a_child_after_fork_leaves_the_parents_things_alone(segment: Segment) -> None:
    buffer = segment.alloc(4096)
    with segment.bind() as port, port.request() as rq:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                rq.free()
                port.close()
                buffer.free()
                try:
                    segment.statistics()
                except xseg.ClosedError as error:
                    status = 0 if "fork" in str(error) else 2
                segment.close()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [p.id for p in segment.ports()] == [port.id]
        assert segment.statistics().nr_used_buffers == 1
        assert segment.statistics().nr_free_requests == 63
    buffer.free()


# ---- buffers ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, PAGE_BYTES, PAGE_BYTES + 1, BUFFER_MAX_BYTES])
def test_a_buffer_is_as_long_as_asked(segment: Segment, size: int) -> None:
    with segment.alloc(size) as buffer:
        assert len(buffer) == memoryview(buffer).nbytes == size
        assert buffer.capacity >= size
        assert buffer.offset % PAGE_BYTES == 0 and buffer.offset > 0
        assert not memoryview(buffer).readonly


@pytest.mark.parametrize("size", [0, -1, BUFFER_MAX_BYTES + 1, 1 << 70])
def test_no_buffer_has_that_size(segment: Segment, size: int) -> None:
    with pytest.raises(xseg.InvalidArgument):
        segment.alloc(size)


def test_bytes_written_through_a_view_are_in_the_shared_memory(
    segment: Segment,
) -> None:
    with segment.alloc(4096) as buffer:
        memoryview(buffer)[:5] = b"hello"
        with open(f"/dev/shm/{segment.name}", "rb") as file:
            assert os.pread(file.fileno(), 5, buffer.offset) == b"hello"


def test_a_full_heap_is_an_error_and_recovers(segment: Segment) -> None:
    taken = []
    with pytest.raises(xseg.SegmentFull, match="4194304 bytes"):
        while True:
            taken.append(segment.alloc(BUFFER_MAX_BYTES))
    assert taken
    taken.pop().free()
    segment.alloc(BUFFER_MAX_BYTES).free()
    for buffer in taken:
        buffer.free()


def test_a_buffer_is_freed_once(segment: Segment) -> None:
    buffer = segment.alloc(4096)
    buffer.free()
    buffer.free()
    assert buffer.closed
    assert "freed" in repr(buffer)
    with pytest.raises(xseg.ClosedError):
        memoryview(buffer)
    assert segment.statistics().nr_used_buffers == 0


def test_a_buffer_in_use_is_not_freed(segment: Segment) -> None:
    buffer = segment.alloc(4096)
    view = memoryview(buffer)[10:20]
    with pytest.raises(BufferError):
        buffer.free()
    view.release()
    buffer.free()


def test_dropping_a_buffer_warns_and_frees_it(segment: Segment) -> None:
    with pytest.warns(ResourceWarning, match="was not freed"):
        segment.alloc(4096)
        gc.collect()
    assert segment.statistics().nr_used_buffers == 0


def test_a_view_outlives_the_name_of_its_buffer(segment: Segment) -> None:
    with pytest.warns(ResourceWarning):
        view = memoryview(segment.alloc(4096))
        view[0] = 7
        gc.collect()
        assert view[0] == 7
        view.release()
        del view
        gc.collect()
