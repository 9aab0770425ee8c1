# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import gc

import pytest

import xseg
from xseg import Flag, ObjectKind, Op, Port, RequestState, Segment
from xseg.constants import ARG_NAME_LEN, INLINE_BYTES, NAME_MAX, NR_ARGS


def accepted(port: Port) -> xseg.Request:
    rq = port.accept()
    assert rq is not None
    return rq


def test_a_request_carries_everything_across(
    segment: Segment, port: Port, server: Port
) -> None:
    with Segment.attach(segment.name) as other, other.bind() as far:
        with port.request() as rq, segment.alloc(8192) as buffer:
            rq.op = Op.WRITE
            rq.flags = Flag.FUA | Flag.FLUSH
            rq.handle, rq.offset, rq.size = 2**64 - 1, 2**63, 8192
            for i in range(NR_ARGS):
                rq.set_arg(i, i * 11)
            rq.target = "disk-ü"
            rq.set_object(ObjectKind.EXTENT, b"\x01" * 24)
            rq.set_data(buffer)
            memoryview(buffer)[:4] = b"data"
            port.submit(rq, far.id)

            got = accepted(far)
            assert got.state is RequestState.SERVING
            assert (got.op, got.flags) == (Op.WRITE, Flag.FUA | Flag.FLUSH)
            assert (got.handle, got.offset, got.size) == (2**64 - 1, 2**63, 8192)
            assert [got.arg(i) for i in range(4)] == [0, 11, 22, 33]
            assert got.target == "disk-ü"
            assert got.object == (ObjectKind.EXTENT, b"\x01" * 24 + bytes(8))
            assert (got.src_port, got.dst_port) == (port.id, far.id)
            with got.data_view(4) as view:
                assert bytes(view) == b"data"
                view[:4] = b"done"  # zero copy: the sender sees it
            with got.inline as inline:
                inline[:2] = b"ok"
            assert far.complete(got, 8192)

            reply = port.reap()
            assert reply is rq
            assert rq.result == 8192
            assert bytes(memoryview(buffer)[:4]) == b"done"
            with rq.inline as inline:
                assert bytes(inline[:2]) == b"ok"


def test_a_fresh_request_is_zeroed(port: Port) -> None:
    with port.request() as rq:
        rq.target = "before"
        rq.size = 7
    with port.request() as rq:
        assert rq.state is RequestState.ALLOCATED
        assert (rq.op, rq.flags, rq.handle, rq.offset, rq.size) == (0, 0, 0, 0, 0)
        assert rq.target == ""
        assert rq.object == (ObjectKind.NONE, bytes(32))
        assert rq.data is None
        assert rq.data_len == 0
        assert len(rq.data_view()) == 0
        with rq.inline as inline:
            assert len(inline) == INLINE_BYTES


def test_names_are_checked_on_the_way_in(port: Port) -> None:
    with port.request() as rq:
        rq.target = "x" * NAME_MAX
        assert rq.target == "x" * NAME_MAX
        with pytest.raises(xseg.InvalidArgument, match="256 bytes") as caught:
            rq.target = "x" * (NAME_MAX + 1)
        assert caught.value.errno == errno.ENAMETOOLONG
        with pytest.raises(xseg.InvalidArgument):
            rq.target = "é" * 128
        assert rq.target == "x" * NAME_MAX


def test_names_of_other_peers_are_checked_on_the_way_out(port: Port) -> None:
    with port.request() as rq:
        rq.set_arg(ARG_NAME_LEN, 2**40)
        with pytest.raises(xseg.InvalidArgument, match="at most 255"):
            _ = rq.target
        rq.set_arg(ARG_NAME_LEN, 2)
        with rq.inline as inline:
            inline[:2] = b"\xff\xfe"
        with pytest.raises(xseg.InvalidArgument, match="UTF-8"):
            _ = rq.target


def test_arguments_and_objects_have_bounds(port: Port) -> None:
    with port.request() as rq:
        with pytest.raises(xseg.InvalidArgument):
            rq.arg(NR_ARGS)
        with pytest.raises(xseg.InvalidArgument):
            rq.set_arg(NR_ARGS, 0)
        with pytest.raises(xseg.InvalidArgument):
            rq.set_object(99, b"")
        with pytest.raises(xseg.InvalidArgument):
            rq.set_object(ObjectKind.LAYER, bytes(33))
        with pytest.raises(OverflowError):
            rq.size = -1


def test_parts_of_a_buffer_are_lent(segment: Segment, port: Port) -> None:
    with port.request() as rq, segment.alloc(100) as buffer:
        memoryview(buffer)[:] = bytes(range(100))
        rq.set_data(buffer, 10, 5)
        assert rq.data is buffer
        assert rq.data_len == 5
        with rq.data_view() as view:
            assert bytes(view) == bytes(range(10, 15))
        rq.set_data(buffer, 90)
        assert rq.data_len == 10
        for start, length in ((0, 101), (-1, 5), (101, None), (50, 51), (2**70, 1)):
            with pytest.raises((xseg.InvalidArgument, OverflowError)):
                rq.set_data(buffer, start, length)
        assert rq.data_len == 10
        with pytest.raises(xseg.InvalidArgument, match="11 bytes of data are needed"):
            rq.data_view(11)
        rq.set_data(None)
        assert rq.data_len == 0


def test_a_buffer_of_another_attachment_is_refused(
    segment: Segment, port: Port
) -> None:
    with Segment.attach(segment.name) as other, other.alloc(10) as buffer:
        with port.request() as rq, pytest.raises(xseg.InvalidArgument):
            rq.set_data(buffer)


def test_a_freed_buffer_is_refused(segment: Segment, port: Port, server: Port) -> None:
    with port.request() as rq:
        buffer = segment.alloc(10)
        rq.set_data(buffer)
        buffer.free()
        with pytest.raises(xseg.InvalidArgument, match="freed"):
            port.submit(rq, server.id)
        with pytest.raises(xseg.InvalidArgument, match="freed"):
            rq.set_data(buffer)


def test_a_request_in_flight_is_left_alone(
    segment: Segment, port: Port, server: Port
) -> None:
    with port.request() as rq, segment.alloc(10) as buffer:
        rq.set_data(buffer)
        port.submit(rq, server.id)
        assert "in flight" in repr(rq)
        with pytest.raises(xseg.BusyError):
            rq.size = 1
        with pytest.raises(xseg.BusyError):
            rq.set_data(None)
        with pytest.raises(xseg.BusyError):
            port.submit(rq, server.id)
        with pytest.raises(xseg.BusyError, match="in flight"):
            buffer.free()
        server.complete(accepted(server), 0)
        assert port.reap() is rq
        rq.size = 1


def test_a_request_freed_in_flight_goes_with_its_reply(
    segment: Segment, port: Port, server: Port
) -> None:
    rq = port.request()
    port.submit(rq, server.id)
    rq.free()
    server.complete(accepted(server), 0)
    assert port.reap() is None
    with pytest.raises(xseg.ClosedError):
        _ = rq.op
    assert segment.statistics().nr_free_requests == 64


def test_freeing_twice_is_harmless_and_use_after_it_an_error(port: Port) -> None:
    rq = port.request()
    rq.free()
    rq.free()
    assert rq.state is RequestState.FREE
    assert "gone" in repr(rq)
    with pytest.raises(xseg.ClosedError):
        rq.op = 1
    with pytest.raises(xseg.ClosedError):
        _ = rq.inline


def test_an_answered_request_is_gone(port: Port, server: Port) -> None:
    with port.request() as rq:
        port.submit(rq, server.id)
        got = accepted(server)
        server.complete(got, 0)
        with pytest.raises(xseg.ClosedError):
            server.complete(got, 0)
        got.free()
        port.reap()


def test_an_accepted_request_that_is_freed_is_cancelled(
    port: Port, server: Port
) -> None:
    with port.request() as rq:
        port.submit(rq, server.id)
        accepted(server).free()
        assert port.reap() is rq
        assert rq.result == -errno.ECANCELED


def test_dropping_a_request_warns_and_frees_it(segment: Segment, port: Port) -> None:
    with pytest.warns(ResourceWarning, match="neither freed nor answered"):
        port.request()
        gc.collect()
    assert segment.statistics().nr_free_requests == 64


def test_dropping_an_accepted_request_warns_and_cancels_it(
    port: Port, server: Port
) -> None:
    with port.request() as rq:
        port.submit(rq, server.id)
        with pytest.warns(ResourceWarning):
            accepted(server)
            gc.collect()
        assert port.reap() is rq
        assert rq.result == -errno.ECANCELED


def test_a_descriptor_is_used_again_and_again(port: Port, server: Port) -> None:
    with port.request() as rq:
        for i in range(200):
            port.submit(rq, server.id)
            server.complete(accepted(server), i)
            assert port.reap() is rq
            assert rq.result == i


def test_the_table_ends(segment: Segment, port: Port) -> None:
    taken = []
    with pytest.raises(xseg.SegmentFull):
        while True:
            taken.append(port.request())
    assert len(taken) == 64
    for rq in taken:
        rq.free()


def test_requests_in_use_are_shown(segment: Segment, port: Port, server: Port) -> None:
    assert segment.requests() == []
    with port.request() as rq:
        rq.op, rq.size, rq.offset, rq.target = Op.READ, 512, 1024, "disk"
        (info,) = segment.requests()
        assert (info.index, info.state, info.op) == (rq.index, "allocated", "READ")
        assert (info.size, info.offset, info.target) == (512, 1024, "disk")
        assert info.age_ns == 0
        port.submit(rq, server.id)
        (info,) = segment.requests()
        assert info.state == "submitted"
        assert (info.src_port, info.dst_port) == (port.id, server.id)
        got = accepted(server)
        assert segment.requests()[0].state == "serving"
        server.complete(got, -errno.EIO)
        (info,) = segment.requests()
        assert (info.state, info.result) == ("done", -errno.EIO)
        assert info.age_ns > 0
        port.reap()
        rq.set_object(ObjectKind.CONTENT, b"\xab" * 32)
        assert segment.requests()[0].target == "CONTENT:" + "ab" * 32
        rq.set_object(ObjectKind.NONE, b"")
        with rq.inline as inline:
            inline[:4] = b"\xff\x00\n\x1b"
        assert segment.requests()[0].target == ""
        rq.set_arg(ARG_NAME_LEN, 2**50)
        assert segment.requests()[0].target == ""
