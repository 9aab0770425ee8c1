# SPDX-License-Identifier: Apache-2.0
"""The least of an NBD client: handshake, requests, simple replies.

Strict on purpose: whatever a server may not send raises `Violation`.  A connection that
ends raises `Lost`, also in the middle of a message: then `Lost.partial` says so.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

from __future__ import annotations

import enum
import socket
import struct
from dataclasses import dataclass

_GREETING = b"NBDMAGICIHAVEOPT"
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698
_OPT_GO = 7
_REP_ACK, _REP_INFO, _REP_ERROR = 1, 3, 1 << 31
_INFO_EXPORT = 0
#: How long a server may be silent [s]: longer is a failure, not a pause.
PATIENCE = 60.0


class Command(enum.IntEnum):
    """Types of requests."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6


FLAG_FUA = 1


class Violation(AssertionError):
    """The server did what it may not do."""


class Lost(Exception):
    """The connection ended.

    Attributes:
        partial: it ended inside a message.
    """

    def __init__(self, why: str, partial: bool = False) -> None:
        super().__init__(why)
        self.partial = partial


@dataclass(frozen=True)
class Reply:
    """The head of one reply; the data of a READ follows on the wire."""

    cookie: int
    error: int


class Connection:
    """One connection in the transmission phase.

    Args:
        path: of the server's unix socket.
        export: name of the volume.

    Raises:
        Lost: the connection ended during the handshake.
        OSError: no server listens there.
        Violation: the export was refused, or the protocol broken.
    """

    def __init__(self, path: str, export: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(PATIENCE)
            self._socket.connect(path)
            self.size = self._shake_hands(export.encode())
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Hang up, without a word."""
        self._socket.close()

    def disconnect(self) -> None:
        """Say goodbye and hang up."""
        try:
            self.send(Command.DISCONNECT, 0, 0, 0)
        except Lost:
            pass
        finally:
            self.close()

    def _shake_hands(self, export: bytes) -> int:
        if self._receive(16, first=True) != _GREETING:
            raise Violation("no NBD server")
        (flags,) = struct.unpack(">H", self._receive(2))
        if flags & 3 != 3:
            raise Violation(f"handshake flags {flags:#x}")
        name = struct.pack(">I", len(export)) + export + struct.pack(">H", 0)
        self._send(
            struct.pack(">I8sII", 3, b"IHAVEOPT", _OPT_GO, len(name)) + name,
        )
        size = -1
        while True:
            head = self._receive(20, first=True)
            magic, option, kind, length = struct.unpack(">QIII", head)
            data = self._receive(length)
            if magic != _OPTION_REPLY_MAGIC or option != _OPT_GO:
                raise Violation(f"option reply {head.hex()}")
            if kind & _REP_ERROR:
                raise Violation(f"the export was refused: {kind:#x} {data!r}")
            if kind == _REP_INFO and data[:2] == struct.pack(">H", _INFO_EXPORT):
                (size,) = struct.unpack(">Q", data[2:10])
            elif kind == _REP_ACK:
                return size

    def send(
        self,
        command: Command,
        cookie: int,
        offset: int,
        length: int,
        data: bytes = b"",
        flags: int = 0,
    ) -> None:
        """Send one request."""
        head = struct.pack(
            ">IHHQQI", _REQUEST_MAGIC, flags, command, cookie, offset, length
        )
        self._send(head + data)

    def receive_reply(self) -> Reply:
        """The head of the next reply."""
        magic, error, cookie = struct.unpack(">IIQ", self._receive(16, first=True))
        if magic != _REPLY_MAGIC:
            raise Violation(f"reply magic {magic:#x}")
        return Reply(cookie, error)

    def receive_data(self, length: int) -> bytes:
        """The data of a READ's reply."""
        return self._receive(length)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (ConnectionError, BrokenPipeError) as error:
            raise Lost(str(error)) from None

    def _receive(self, length: int, *, first: bool = False) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                piece = self._socket.recv(length - len(data))
            except ConnectionError as error:
                raise Lost(str(error), bool(data) or not first) from None
            except TimeoutError:
                raise Violation(f"no word for {PATIENCE:.0f} s") from None
            if not piece:
                raise Lost("end of file", bool(data) or not first)
            data += piece
        return bytes(data)
