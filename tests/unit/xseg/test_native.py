# SPDX-License-Identifier: Apache-2.0
"""The peers of this process, through the bindings alone."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import xseg
from xseg import Native, ObjectKind, Op, Port, Role, Segment
from xseg.constants import PORT_BLOCKERB, PORT_BLOCKERM
from xseg.payload import ObjectInfo

BLOCKERS = Role.BLOCKERB | Role.BLOCKERM
EXTENT = b"v" * 16 + (1).to_bytes(8, "little") + bytes(8)


@contextmanager
def served(native: Native) -> Iterator[Native]:
    """Run the peers on a thread, as a program that handles signals does."""
    thread = threading.Thread(target=native.run)
    thread.start()
    try:
        yield native
    finally:
        native.stop()
        thread.join()


@pytest.fixture(params=["mem", "file"])
def native(
    request: pytest.FixtureRequest, segment: Segment, tmp_path: Path
) -> Iterator[Native]:
    data, maps = tmp_path / "data", tmp_path / "maps"
    data.mkdir()
    maps.mkdir()
    native = Native(
        segment, BLOCKERS, backend=request.param, data_path=data, maps_path=maps
    )
    with native, served(native):
        yield native


def test_blockers_answer_and_store(
    segment: Segment, port: Port, native: Native
) -> None:
    assert native.roles == BLOCKERS
    roles = {p.id: p.role for p in segment.ports()}
    assert roles[PORT_BLOCKERB] == "blockerb" and roles[PORT_BLOCKERM] == "blockerm"
    with port.request() as rq, segment.alloc(8192) as buffer:
        rq.op = Op.PING
        assert xseg.raise_for(port.call(rq, PORT_BLOCKERB)) == 0

        memoryview(buffer)[:] = bytes(range(256)) * 32
        rq.op, rq.offset, rq.size = Op.WRITE, 4096, 8192
        rq.set_object(ObjectKind.EXTENT, EXTENT)
        rq.set_data(buffer)
        assert port.call(rq, PORT_BLOCKERB) == 8192

        memoryview(buffer)[:] = b"\xff" * 8192
        rq.op, rq.offset = Op.READ, 0
        assert port.call(rq, PORT_BLOCKERB) == 8192
        assert bytes(memoryview(buffer)) == bytes(4096) + bytes(range(256)) * 16


def test_a_store_describes_itself(segment: Segment, port: Port, native: Native) -> None:
    with port.request() as rq:
        rq.op = Op.INFO
        rq.set_object(ObjectKind.NONE, b"")
        xseg.raise_for(port.call(rq, PORT_BLOCKERM), "info of the store")
        with rq.inline as inline:
            info = ObjectInfo.unpack(inline)
        assert info.backend in ("file", "mem")
        assert info.size_bytes > 0


def test_a_missing_object_is_not_found(
    segment: Segment, port: Port, native: Native
) -> None:
    with port.request() as rq:
        rq.op = Op.INFO
        rq.set_object(ObjectKind.CONTENT, b"\x01" * 32)
        with pytest.raises(xseg.NotFound, match="block 0101"):
            xseg.raise_for(port.call(rq, PORT_BLOCKERB), "block 0101")


def test_running_peers_are_neither_closed_nor_run_twice(
    segment: Segment, port: Port
) -> None:
    with Native(segment, Role.BLOCKERB, backend="mem") as native, served(native):
        with port.request() as rq:
            port.call(rq, PORT_BLOCKERB)  # now it runs for certain
        with pytest.raises(xseg.BusyError):
            native.run()
        with pytest.raises(xseg.BusyError):
            native.close()


def test_stopping_before_running_returns_at_once(segment: Segment) -> None:
    with Native(segment.name, Role.BLOCKERB, backend="mem") as native:
        native.stop()
        native.run()


def test_closed_peers_leave_their_ports(segment: Segment) -> None:
    native = Native(segment, BLOCKERS, backend="mem")
    native.close()
    native.close()
    native.stop()
    assert segment.ports() == []
    with pytest.raises(xseg.ClosedError):
        native.run()


def test_dropped_peers_warn_and_are_freed(segment: Segment) -> None:
    with pytest.warns(ResourceWarning, match="peers were not closed"):
        Native(segment, Role.BLOCKERB, backend="mem")
    assert segment.ports() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"backend": "tape"},
        {"backend": "mem", "engine": "steam"},
        {"backend": "mem", "segment": "nobody-made-this"},
        {"backend": "mem", "roles": Role.NBD},
        {"backend": "mem", "roles": 0},
        {"backend": "file", "data_path": "/proc/version/here"},
        {"backend": "m\0m"},
        {"backend": "mem", "marks_fd": 0},
    ],
)
def test_a_wrong_option_is_named(segment: Segment, wrong: dict[str, object]) -> None:
    options: dict[str, object] = {"roles": Role.BLOCKERB, "segment": segment, **wrong}
    target, roles = options.pop("segment"), options.pop("roles")
    with pytest.raises(xseg.XsegError, match=r"start peers|NUL"):
        Native(target, roles, **options)  # type: ignore[arg-type]
    assert segment.ports() == []


def test_the_mapper_takes_a_memory_for_marks(segment: Segment) -> None:
    fd = os.memfd_create("marks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, 4 << 20)
        with pytest.raises(xseg.InvalidArgument, match="sealed"):
            Native(segment, Role.MAPPERD, backend="mem", marks_fd=fd)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        Native(segment, Role.MAPPERD, backend="mem", marks_fd=fd).close()
    finally:
        os.close(fd)


def test_a_taken_port_is_named(segment: Segment) -> None:
    with segment.bind(PORT_BLOCKERB), pytest.raises(xseg.BusyError):
        Native(segment, Role.BLOCKERB, backend="mem")


def test_the_engine_of_this_machine_has_a_name() -> None:
    assert xseg.default_engine() in ("io_uring", "threads")
