# SPDX-License-Identifier: Apache-2.0
"""As much of an NBD client as it takes to read an image from qemu-nbd.

One request at a time on each connection; a connection belongs to one thread at a time.

Source: doc/proto.md of the NetworkBlockDevice project: fixed newstyle negotiation,
structured replies, the metadata context "base:allocation".
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

__all__ = ["NbdConnection"]

_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_REQUEST = struct.Struct(">IHHQQI")
_CHUNK = struct.Struct(">IHHQI")

_INIT_MAGIC = b"NBDMAGICIHAVEOPT"
_OPTION_MAGIC = b"IHAVEOPT"
_OPTION_REPLY_MAGIC = 0x0003E889045565A9
_REQUEST_MAGIC = 0x25609513
_CHUNK_MAGIC = 0x668E33EF

_CLIENT_FLAGS = 3  # fixed newstyle, no zeroes
_OPT_GO, _OPT_STRUCTURED_REPLY, _OPT_SET_META_CONTEXT = 7, 8, 10
_REP_ACK, _REP_INFO, _REP_ERROR = 1, 3, 1 << 31
_INFO_EXPORT = 0
_CMD_READ, _CMD_BLOCK_STATUS = 0, 7
_FLAG_DONE = 1
_OFFSET_DATA, _OFFSET_HOLE, _BLOCK_STATUS = 1, 2, 5
_CHUNK_ERROR = 1 << 15
_STATE_ZERO = 2

_CONTEXT = b"base:allocation"
#: Longest range of one question for the allocation [bytes]: what 32 bits can say, whole
#: clusters; longest answer of the server that is taken in [bytes].
_STATUS_BYTES = (1 << 32) - (4 << 20)
_ANSWER_BYTES = 1 << 20


class NbdConnection:
    """A connection to the default export of a server.

    Args:
        sock: connected; closed by `close`.

    Attributes:
        size: of the export [bytes].

    Raises:
        OSError: the server ended, or does not speak as it should.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._cookie = 0
        self.size = 0
        self._greet()

    def close(self) -> None:
        """End the connection.  Twice is harmless."""
        self._sock.close()

    def cancel(self) -> None:
        """Let a thread that waits for the server get an error; from any thread."""
        with contextlib.suppress(OSError):  # the server ended first
            self._sock.shutdown(socket.SHUT_RDWR)

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill a buffer.

        Args:
            view: up to 32 MiB.
            offset: [bytes].

        Raises:
            OSError: the image cannot be read there.
        """
        self._request(_CMD_READ, offset, len(view))
        error = 0
        done = False
        while not done:
            kind, length, done = self._chunk()
            if kind & _CHUNK_ERROR:
                error = self._error(length)
            elif kind == _OFFSET_DATA and length >= 8:
                (start,) = struct.unpack(">Q", self._receive(8))
                self._receive_into(_part(view, start - offset, length - 8))
            elif kind == _OFFSET_HOLE and length == 12:
                start, size = struct.unpack(">QI", self._receive(12))
                part = _part(view, start - offset, size)
                part[:] = bytes(size)
            elif length:
                raise _nonsense(f"a chunk of type {kind}")
        if error:
            raise OSError(error, os.strerror(error))

    def next_data(self, offset: int) -> tuple[int, int]:
        """The next range at or behind `offset` that is not known to be zeros.

        Returns:
            Start and end [bytes]; both are the size if there is none.
        """
        start = end = offset
        while end < self.size:
            length, zeros = self._status(end)
            if not zeros:
                return end, end + length
            start = end = end + length
        return min(start, self.size), self.size

    def _status(self, offset: int) -> tuple[int, bool]:
        """How far the range at `offset` is alike [bytes], and if it is zeros."""
        wanted = min(_STATUS_BYTES, self.size - offset)
        self._request(_CMD_BLOCK_STATUS, offset, wanted)
        found: tuple[int, bool] | None = None
        error = 0
        done = False
        while not done:
            kind, length, done = self._chunk()
            if kind & _CHUNK_ERROR:
                error = self._error(length)
            elif kind == _BLOCK_STATUS and length >= 12:
                raw = self._receive(length)
                size, state = struct.unpack_from(">II", raw, 4)
                found = min(size, self.size - offset), bool(state & _STATE_ZERO)
            elif length:
                raise _nonsense(f"a chunk of type {kind}")
        if error:
            raise OSError(error, os.strerror(error))
        if found is None or not found[0]:
            raise _nonsense("no status")
        return found

    # ---- how -------------------------------------------------------------------------

    def _greet(self) -> None:
        if self._receive(18)[:16] != _INIT_MAGIC:
            raise _nonsense("an unknown greeting")
        self._sock.sendall(struct.pack(">I", _CLIENT_FLAGS))
        self._option(_OPT_STRUCTURED_REPLY, b"")
        name = struct.pack(">I", 0)
        query = struct.pack(">II", 1, len(_CONTEXT)) + _CONTEXT
        self._option(_OPT_SET_META_CONTEXT, name + query)
        for kind, raw in self._option(_OPT_GO, name + struct.pack(">H", 0)):
            if kind == _REP_INFO and len(raw) >= 12:
                what, size = struct.unpack_from(">HQ", raw)
                if what == _INFO_EXPORT:
                    self.size = size

    def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        """Negotiate one option; returns what came before the acknowledgement."""
        self._sock.sendall(_OPTION.pack(_OPTION_MAGIC, option, len(data)) + data)
        replies: list[tuple[int, bytes]] = []
        while True:
            magic, answered, kind, length = _OPTION_REPLY.unpack(
                self._receive(_OPTION_REPLY.size)
            )
            if magic != _OPTION_REPLY_MAGIC or answered != option:
                raise _nonsense("an answer to another option")
            raw = self._receive(length)
            if kind == _REP_ACK:
                return replies
            if kind & _REP_ERROR:
                raise _nonsense(f"a refusal of option {option}")
            replies.append((kind, raw))

    def _request(self, command: int, offset: int, length: int) -> None:
        self._cookie += 1
        self._sock.sendall(
            _REQUEST.pack(_REQUEST_MAGIC, 0, command, self._cookie, offset, length)
        )

    def _chunk(self) -> tuple[int, int, bool]:
        """Type and length of the next chunk, and if it is the reply's last."""
        magic, flags, kind, cookie, length = _CHUNK.unpack(self._receive(_CHUNK.size))
        if magic != _CHUNK_MAGIC or cookie != self._cookie:
            raise _nonsense("an answer to another request")
        return kind, length, bool(flags & _FLAG_DONE)

    def _error(self, length: int) -> int:
        raw = self._receive(length)
        if len(raw) < 4:
            raise _nonsense("a short error")
        return int.from_bytes(raw[:4], "big")

    def _receive(self, size: int) -> bytes:
        if size > _ANSWER_BYTES:
            raise _nonsense(f"{size} bytes")
        raw = bytearray(size)
        self._receive_into(memoryview(raw))
        return bytes(raw)

    def _receive_into(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            got = self._sock.recv_into(view[done:])
            if got == 0:
                raise ConnectionResetError("qemu-nbd ended")
            done += got


def _part(view: memoryview, start: int, size: int) -> memoryview:
    if start < 0 or start + size > len(view):
        raise _nonsense("data that was not asked for")
    return view[start : start + size]


def _nonsense(what: str) -> OSError:
    return OSError(f"qemu-nbd answered with {what}")
