# SPDX-License-Identifier: Apache-2.0
"""libnbd with its checks off: what a client may not do gets an error and no more."""

from __future__ import annotations

import subprocess

import pytest

from archipelago import Client, VolumeBusy
from tests.interop.nbd.clients import Export, libnbd_python, tool

PYTHON = libnbd_python()
pytestmark = pytest.mark.skipif(PYTHON is None, reason="needs libnbd's Python bindings")

PRELUDE = """
import errno
import sys
import nbd
MIB = 1 << 20
url = sys.argv[1]
def expect(number, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except nbd.Error as error:
        assert error.errnum == number, (error.errnum, number)
    else:
        raise AssertionError(f"no error {number}")
def connect():
    handle = nbd.NBD()
    handle.add_meta_context("base:allocation")
    handle.connect_uri(url)
    handle.set_strict_mode(0)
    return handle
"""

WRONG_REQUESTS = """
h = connect()
size = h.get_size()
one = bytearray(1)
expect(errno.EINVAL, h.pread, 1, size)
expect(errno.EINVAL, h.pread, 2, size - 1)
expect(errno.EINVAL, h.pread, 4096, 2**64 - 4096)
expect(errno.ENOSPC, h.pwrite, b"x", size)
expect(errno.ENOSPC, h.pwrite, b"x" * 4096, size - 1)
expect(errno.ENOSPC, h.zero, 4096, size - 1)
expect(errno.EINVAL, h.trim, 4096, size - 1)
expect(errno.EINVAL, h.pread, 0, 0)
expect(errno.EINVAL, h.pwrite, b"", 0)
expect(errno.EINVAL, h.trim, 0, 0)
expect(errno.EINVAL, h.zero, 0, 0)
expect(errno.EINVAL, h.block_status, 4096, size, lambda *args: 0)
expect(errno.EINVAL, h.pread, 4096, 0, nbd.CMD_FLAG_REQ_ONE)
expect(errno.EINVAL, h.trim, 4096, 0, nbd.CMD_FLAG_NO_HOLE)
expect(errno.EINVAL, h.flush, nbd.CMD_FLAG_NO_HOLE)
expect(errno.EOPNOTSUPP, h.zero, 4096, 0,
       nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
h.pwrite(b"still here", 0)
assert h.pread(10, 0) == b"still here"
h.shutdown()
"""

READ_ONLY = """
h = connect()
assert h.is_read_only()
expect(errno.EPERM, h.pwrite, b"x" * 4096, 0)
expect(errno.EPERM, h.trim, 4096, 0)
expect(errno.EPERM, h.zero, 4096, 0)
h.flush()
assert len(h.pread(4096, 0)) == 4096
h.shutdown()
"""

EVERY_COMMAND = """
h = connect()
data = bytes(range(256)) * 131072
h.pwrite(data, 4096, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 4096) == data
assert h.pread(len(data), 4096, nbd.CMD_FLAG_DF) == data
h.cache(len(data), 4096)
h.flush()
h.zero(MIB, 4096)
h.zero(MIB, 4096 + MIB, nbd.CMD_FLAG_NO_HOLE)
h.zero(MIB, 4096 + 2 * MIB, nbd.CMD_FLAG_FAST_ZERO)
h.trim(MIB, 4096 + 3 * MIB, nbd.CMD_FLAG_FUA)
assert h.pread(4 * MIB, 4096) == bytes(4 * MIB)
assert h.pread(MIB, 4096 + 4 * MIB) == data[4 * MIB : 5 * MIB]
h.shutdown()
"""

EXTENTS = """
h = connect()
h.pwrite(b"x" * 8192, 4096)
found = []
def extent(context, offset, entries, error):
    assert context == "base:allocation"
    found.extend(zip(entries[::2], entries[1::2]))
    return 0
h.block_status(MIB, 0, extent)
hole = nbd.STATE_HOLE | nbd.STATE_ZERO
assert found == [(4096, hole), (8192, 0), (MIB - 12288, hole)], found
found.clear()
h.block_status(MIB, 5000, extent, nbd.CMD_FLAG_REQ_ONE)
assert found == [(12288 - 5000, 0)], found
h.shutdown()
"""

SEVERAL_CONNECTIONS = """
handles = [connect() for _ in range(8)]
assert all(h.can_multi_conn() for h in handles)
for number, h in enumerate(handles):
    h.pwrite(bytes([number + 1]) * 4096, number * 4096)
handles[0].flush()
for h in handles[::-1]:
    got = h.pread(8 * 4096, 0)
    assert got == b"".join(bytes([n + 1]) * 4096 for n in range(8))
for h in handles:
    h.shutdown()
"""

MANY_AT_ONCE = """
h = connect()
import random
order = list(range(64))
random.Random(1).shuffle(order)
todo = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([n + 1]) * 65536), n * 65536)
        for n in order]
while todo:
    h.poll(-1)
    todo = [cookie for cookie in todo if not h.aio_command_completed(cookie)]
assert h.pread(64 * 65536, 0) == b"".join(bytes([n + 1]) * 65536 for n in range(64))
h.shutdown()
"""

GONE_IN_THE_MIDDLE = """
for _ in range(20):
    h = connect()
    for n in range(16):
        h.aio_pread(nbd.Buffer(1024 * 1024), n * 65536)
        h.aio_pwrite(nbd.Buffer(65536), n * 65536)
    del h
"""


def command(script: str, export: Export) -> list[str]:
    assert PYTHON is not None
    return [PYTHON, "-c", PRELUDE + script, export.url]


def run(script: str, export: Export) -> None:
    tool(*command(script, export))


@pytest.mark.parametrize(
    "script",
    [WRONG_REQUESTS, EVERY_COMMAND, EXTENTS, SEVERAL_CONNECTIONS, MANY_AT_ONCE],
    ids=["wrong-requests", "every-command", "extents", "several", "many-at-once"],
)
def test_libnbd(export: Export, script: str) -> None:
    run(script, export)


def test_a_snapshot_refuses_every_change(export: Export) -> None:
    run(READ_ONLY, export.snapshot())


def test_other_clients_do_not_notice_one_that_goes_away(
    export: Export,
) -> None:
    run(GONE_IN_THE_MIDDLE, export)
    run(MANY_AT_ONCE, export)


CONNECTED = """
h, g = connect(), connect()
g.shutdown()
print("connected", flush=True)
sys.stdin.read()
h.shutdown()
"""


def test_the_last_disconnect_closes_the_volume(export: Export, client: Client) -> None:
    holder = subprocess.Popen(
        command(CONNECTED, export),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdin and holder.stdout
        assert holder.stdout.readline() == b"connected\n"
        with pytest.raises(VolumeBusy):
            client.remove(export.name)
        holder.stdin.close()
        holder.stdout.read()
    # The endpoint closes it a moment after its client has gone.
    while True:
        try:
            client.remove(export.name)
        except VolumeBusy:
            continue
        break
