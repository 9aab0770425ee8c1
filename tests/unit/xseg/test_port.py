# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import gc
import os
import select
import signal
import subprocess
import sys
import threading
from types import FrameType

import pytest

import xseg
from xseg import Buffer, Op, Port, Request, Segment
from xseg.constants import PORT_ANY, PORT_DYNAMIC, PORT_VLMCD
from xseg.testing import EchoPeer


def accepted(port: Port) -> Request:
    rq = port.accept()
    assert rq is not None
    return rq


# ---- binding ---------------------------------------------------------------------


def test_ports_are_numbered_from_the_dynamic_ones(segment: Segment) -> None:
    with segment.bind() as first, segment.bind(PORT_ANY, role="tool") as second:
        assert PORT_DYNAMIC <= first.id < second.id
        assert (first.role, second.role) == ("client", "tool")
        assert first.segment is segment
    with segment.bind(PORT_VLMCD, "vlmcd") as port:
        assert port.id == PORT_VLMCD


def test_a_port_has_one_owner(segment: Segment) -> None:
    with segment.bind(PORT_VLMCD), pytest.raises(xseg.BusyError, match="port 5"):
        segment.bind(PORT_VLMCD)
    segment.bind(PORT_VLMCD).close()


@pytest.mark.parametrize(
    ("port", "role"),
    [
        (0, "x"),
        (1024, "x"),
        (9, ""),
        (9, "x" * 32),
        (-1, "x"),
        (2**40, "x"),
        (9, "a\0b"),
    ],
)
def test_a_bad_port_or_role_is_refused(segment: Segment, port: int, role: str) -> None:
    with pytest.raises(xseg.InvalidArgument):
        segment.bind(port, role)


def test_dynamic_ports_run_out(segment: Segment) -> None:
    ports = []
    with pytest.raises(xseg.SegmentFull):
        while True:
            ports.append(segment.bind())
    assert len(ports) == segment.statistics().nr_ports - PORT_DYNAMIC
    for port in ports:
        port.close()


def test_unbinding_twice_is_harmless_and_use_after_it_an_error(
    segment: Segment,
) -> None:
    port = segment.bind()
    port.unbind()
    port.close()
    assert port.closed
    assert "unbound" in repr(port)
    for use in (port.request, port.accept, port.reap, port.wait, port.fileno):
        with pytest.raises(xseg.ClosedError):
            use()


def test_dropping_a_port_warns_and_unbinds_it(segment: Segment) -> None:
    with pytest.warns(ResourceWarning, match="was not unbound"):
        segment.bind()
        gc.collect()
    assert segment.ports() == []


def test_unbinding_frees_requests_and_cancels_what_was_accepted(
    segment: Segment, port: Port
) -> None:
    server = segment.bind()
    idle = server.request()
    with port.request() as first, port.request() as second:
        port.submit(first, server.id)
        port.submit(second, server.id)
        kept = accepted(server)
        server.close()
        kept.free()
        idle.free()
        results = []
        while (reply := port.reap()) is not None:
            results.append((reply is first, reply.result))
        assert sorted(results) == [(False, -errno.EPIPE), (True, -errno.ECANCELED)]
    assert segment.statistics().nr_free_requests == 64


def port_with_a_request(segment: Segment, server: Port) -> tuple[Port, Buffer]:
    """A port that sent the server a request with a buffer, and that buffer."""
    port = segment.bind()
    rq, buffer = port.request(), segment.alloc(4096)
    rq.set_data(buffer)
    port.submit(rq, server.id)
    return port, buffer


def test_unbinding_leaves_a_buffer_to_the_peer_that_serves_it(
    segment: Segment, server: Port
) -> None:
    port, buffer = port_with_a_request(segment, server)
    got = accepted(server)
    port.close()
    assert buffer.closed
    assert segment.statistics().nr_used_buffers == 1
    assert server.complete(got, 0) is False
    assert segment.statistics().nr_free_requests == 64


def test_unbinding_takes_back_what_nobody_accepted(
    segment: Segment, server: Port
) -> None:
    port, buffer = port_with_a_request(segment, server)
    port.close()
    assert server.accept() is None
    assert segment.statistics().nr_free_requests == 64
    buffer.free()
    assert segment.statistics().nr_used_buffers == 0


# ---- sending ---------------------------------------------------------------------


def test_a_port_without_owner_refuses(port: Port) -> None:
    with port.request() as rq:
        with pytest.raises(xseg.PortUnbound, match="port 5"):
            port.submit(rq, PORT_VLMCD)
        with pytest.raises(xseg.InvalidArgument):
            port.submit(rq, 5000)
        rq.op = Op.PING  # still ours


def test_another_ports_request_is_refused(port: Port, server: Port) -> None:
    with port.request() as rq:
        with pytest.raises(xseg.InvalidArgument):
            server.submit(rq, port.id)
        with pytest.raises(xseg.InvalidArgument):
            server.complete(rq, 0)
        port.submit(rq, server.id)
        got = accepted(server)
        with pytest.raises(xseg.InvalidArgument):
            server.submit(got, port.id)
        server.complete(got, 0)
        port.reap()


def test_reserved_descriptors_are_there_when_others_took_the_rest(
    segment: Segment, port: Port, server: Port
) -> None:
    server.reserve(4)
    taken = []
    with pytest.raises(xseg.SegmentFull):
        while True:
            taken.append(port.request())
    assert len(taken) == 60
    mine = [server.request() for _ in range(4)]
    with pytest.raises(xseg.SegmentFull):
        server.request()
    with pytest.raises(xseg.SegmentFull):
        port.reserve(1)
    for rq in taken + mine:
        rq.free()


def test_a_call_returns_the_raw_result(segment: Segment) -> None:
    def handler(rq: Request) -> int:
        if rq.op == Op.READ:
            return rq.size
        raise xseg.NotSupported(errno.EOPNOTSUPP, "no")

    with EchoPeer(segment.name, handler=handler) as peer, segment.bind() as port:
        with port.request() as rq:
            rq.op, rq.size = Op.READ, 12345
            assert port.call(rq, peer.port) == rq.result == 12345
            rq.op = Op.HASH
            assert port.call(rq, peer.port, 5.0) == -errno.EOPNOTSUPP


def test_a_call_times_out_and_its_reply_comes_later(port: Port, server: Port) -> None:
    with port.request() as rq:
        with pytest.raises(TimeoutError):
            port.call(rq, server.id, timeout=0)
        server.complete(accepted(server), 3)
        assert port.wait(0)
        assert port.reap() is rq
        assert rq.result == 3


def test_a_call_keeps_replies_to_others_for_reap(
    segment: Segment, port: Port, server: Port, echo: EchoPeer
) -> None:
    with port.request() as slow, port.request() as fast:
        port.submit(slow, server.id)
        server.complete(accepted(server), 77)
        assert port.call(fast, echo.port) == 0
        assert port.pending
        assert port.wait(0)
        assert port.reap() is slow
        assert slow.result == 77
        assert port.reap() is None


def test_a_call_keeps_requests_for_accept(port: Port, server: Port) -> None:
    """A server that calls another server while it is called itself."""
    with server.request() as in_turn, port.request() as rq:
        server.submit(in_turn, port.id)
        with pytest.raises(xseg.TimedOut):
            port.call(rq, server.id, timeout=0)
        assert port.wait(0)
        port.complete(accepted(port), 5)
        assert server.reap() is in_turn
        server.complete(accepted(server), 0)
        assert port.reap() is rq


def test_nan_is_no_timeout(port: Port) -> None:
    with pytest.raises(xseg.InvalidArgument):
        port.wait(float("nan"))


# ---- waiting ---------------------------------------------------------------------


def test_waiting_for_nothing_ends(port: Port) -> None:
    assert port.wait(0) is False
    assert port.wait(-5) is False
    assert port.wait(0.001) is False
    assert not port.pending


def test_waiting_ends_when_something_is_there(port: Port, server: Port) -> None:
    with port.request() as rq:
        port.submit(rq, server.id)
        assert server.pending
        assert server.wait() is True
        server.complete(accepted(server), 0)
        assert port.wait() is True
        port.reap()


def test_others_run_while_a_port_waits_and_may_not_use_it(segment: Segment) -> None:
    """The lock of the interpreter is free, and the port says that it is taken."""
    port = segment.bind()
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(port.wait(60)))
    thread.start()
    spare: Request | None = None
    while spare is None or not thread.is_alive():
        if spare is not None:
            spare.free()
        # Before the thread is in its wait, this works; then it must not.
        try:
            spare = port.request()
            spare.free()
            spare = None
        except xseg.BusyError:
            break
    for use in (port.request, port.accept, port.reap, port.close, port.wait):
        with pytest.raises(xseg.BusyError):
            use()
    with pytest.raises(xseg.BusyError):
        segment.close()
    with segment.bind() as other, other.request() as rq:
        other.submit(rq, port.id)
        thread.join()
        assert result == [True]
        port.complete(accepted(port), 0)
        assert other.wait()
        other.reap()
    port.close()


def test_ctrl_c_ends_a_wait(port: Port) -> None:
    class Stop(Exception):
        pass

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stop

    old = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Stop):
            port.wait(60)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert port.wait(0) is False  # usable again


def test_ctrl_c_ends_a_call_and_its_request_goes_with_the_reply(
    segment: Segment, port: Port, server: Port
) -> None:
    class Stop(Exception):
        pass

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stop

    old = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Stop), port.request() as rq:
            port.call(rq, server.id)
    finally:
        signal.signal(signal.SIGALRM, old)
    server.complete(accepted(server), 0)
    assert port.reap() is None
    assert segment.statistics().nr_free_requests == 64


def test_a_request_dropped_while_its_port_waits_is_freed_after(
    segment: Segment,
) -> None:
    port = segment.bind()
    spare = [port.request()]
    entered = threading.Event()

    def wait() -> None:
        entered.set()
        port.wait(60)

    thread = threading.Thread(target=wait)
    thread.start()
    entered.wait()
    while True:
        try:
            port.reap()
        except xseg.BusyError:
            break
    with pytest.warns(ResourceWarning):
        spare.clear()
        gc.collect()
    with segment.bind() as other, other.request() as rq:
        other.submit(rq, port.id)
        thread.join()
        assert segment.statistics().nr_free_requests == 63
        port.complete(accepted(port), 0)
        other.reap()
    port.close()


def test_a_port_in_a_loop_is_woken_by_its_descriptor(port: Port, server: Port) -> None:
    fd = server.fileno()
    assert fd == server.fileno()
    server.arm()
    assert not server.pending
    assert select.select([fd], [], [], 0)[0] == []
    with port.request() as rq:
        port.submit(rq, server.id)
        assert select.select([fd], [], [], 30)[0] == [fd]
        while select.select([fd], [], [], 0)[0]:
            server.disarm()  # the last drains it, once the ring is over
        server.complete(accepted(server), 0)
        port.reap()


def test_ports_of_a_thread_may_share_a_bell(
    segment: Segment, port: Port, server: Port
) -> None:
    with segment.bind() as second:
        second.share_bell(server)
        fd = server.fileno()
        server.arm()
        with port.request() as rq:
            port.submit(rq, second.id)
            assert select.select([fd], [], [], 30)[0] == [fd]
            server.disarm()
            second.complete(accepted(second), 0)
            port.reap()


# ---- statistics --------------------------------------------------------------------


def test_counters_tell_what_passed(segment: Segment, port: Port, server: Port) -> None:
    with port.request() as rq:
        for op, result in ((Op.READ, 4096), (Op.WRITE, 512), (Op.FLUSH, -errno.EIO)):
            rq.op = op
            port.submit(rq, server.id)
            depth = {p.id: p.queue_depth for p in segment.ports()}
            assert depth == {port.id: 0, server.id: 1}
            server.complete(accepted(server), result)
            port.reap()
    by_id = {p.id: p for p in segment.ports()}
    mine, theirs = by_id[port.id], by_id[server.id]
    assert (mine.submitted, mine.reaped) == (3, 3)
    assert (theirs.accepted, theirs.completed, theirs.errors) == (3, 3, 1)
    assert (theirs.read_bytes, theirs.write_bytes) == (4096, 512)
    assert theirs.role == "server" and theirs.state == "bound" and theirs.alive
    assert theirs.owner_pid == os.getpid()
    assert theirs.bound_ns > 0


# ---- the dead ----------------------------------------------------------------------

SERVER_THAT_DIES = """
import os, sys, xseg
segment = xseg.Segment.attach(sys.argv[1])
port = segment.bind(5, "doomed")
keep = segment.alloc(4096)
print("bound", flush=True)
assert port.wait(60)
rq = port.accept()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def doomed(segment: Segment) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER_THAT_DIES, segment.name],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "bound\n"
    return process


@pytest.mark.slow
def test_a_call_ends_when_its_server_dies(
    segment: Segment, doomed: subprocess.Popen[str]
) -> None:
    with segment.bind() as port, port.request() as rq:

        def look_after_the_segment() -> None:
            doomed.wait()
            segment.reap()

        waiter = threading.Thread(target=look_after_the_segment)
        waiter.start()
        result = port.call(rq, PORT_VLMCD, timeout=60)
        waiter.join()
        assert result == -errno.EOWNERDEAD
        with pytest.raises(xseg.PeerDied):
            xseg.raise_for(result)
        assert [p.id for p in segment.ports()] == [port.id]
        assert segment.statistics().nr_used_buffers == 0


@pytest.mark.slow
def test_reaping_gives_back_what_the_dead_held(
    segment: Segment, doomed: subprocess.Popen[str]
) -> None:
    with segment.bind() as port, port.request() as rq:
        port.submit(rq, PORT_VLMCD)
        doomed.wait()
        dead = {p.id: p for p in segment.ports()}[PORT_VLMCD]
        assert not dead.alive
        result = segment.reap()
        assert (result.ports, result.buffers) == (1, 1)
        assert port.wait(60)
        assert port.reap() is rq
        assert rq.result == -errno.EOWNERDEAD
        assert segment.reap() == xseg.ReapResult(0, 0, 0)
