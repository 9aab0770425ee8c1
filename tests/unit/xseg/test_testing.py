# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

import pytest

import xseg
from xseg import Op, Request, Segment
from xseg.testing import EchoPeer, temporary_segment


def test_an_echo_leaves_the_data(segment: Segment, echo: EchoPeer) -> None:
    with segment.bind() as port, port.request() as rq, segment.alloc(10) as buffer:
        memoryview(buffer)[:] = b"0123456789"
        rq.op, rq.size = Op.WRITE, 10
        rq.set_data(buffer)
        assert port.call(rq, echo.port) == 10
        rq.op = Op.READ
        assert port.call(rq, echo.port) == 10
        rq.op = Op.FLUSH
        assert port.call(rq, echo.port) == 0
        assert bytes(memoryview(buffer)) == b"0123456789"
    assert echo.served == 3


def test_what_a_handler_raises_is_answered_and_raised_at_close(
    segment: Segment,
) -> None:
    def broken(rq: Request) -> int:
        raise KeyError("bug")

    peer = EchoPeer(segment.name, handler=broken)
    with segment.bind() as port, port.request() as rq:
        assert port.call(rq, peer.port) == -errno.EIO
    with pytest.raises(KeyError, match="bug"):
        peer.close()
    peer.close()


def test_a_temporary_segment_may_be_destroyed_inside() -> None:
    with temporary_segment() as segment:
        Segment.destroy(segment.name)
    assert segment.name not in xseg.segments()


def test_an_echo_on_a_taken_port_leaves_nothing(segment: Segment) -> None:
    with segment.bind(5), pytest.raises(xseg.BusyError):
        EchoPeer(segment.name, 5)
