# SPDX-License-Identifier: Apache-2.0
"""An NBD export with the calls of `archipelago.Volume` that writers use.

One connection, one request at a time, nothing repeated: writers need to know exactly
what was answered.
"""

from __future__ import annotations

import errno
from pathlib import Path

from tests.integration.nbdwire import FLAG_FUA, Command, Connection, Lost


class NbdDisk:
    """A connection to an export.

    Args:
        path: the unix socket.
        name: of the export.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._connection = Connection(str(path), name)

    def pread(self, size: int, offset: int) -> bytes:
        """Read bytes."""
        self._request(Command.READ, offset, size)
        return self._connection.receive_data(size)

    def pwrite(self, data: bytes, offset: int, *, durable: bool = False) -> None:
        """Write bytes; durable once this returns if that is asked."""
        flags = FLAG_FUA if durable else 0
        self._request(Command.WRITE, offset, len(data), data, flags)

    def zero(self, offset: int, size: int) -> None:
        """Make a range read as zeros."""
        self._request(Command.WRITE_ZEROES, offset, size)

    def flush(self) -> None:
        """Make what was answered durable."""
        self._request(Command.FLUSH, 0, 0)

    def close(self) -> None:
        """Disconnect."""
        self._connection.disconnect()

    def _request(
        self,
        command: Command,
        offset: int,
        size: int,
        data: bytes = b"",
        flags: int = 0,
    ) -> None:
        try:
            self._connection.send(command, 0, offset, size, data, flags)
            reply = self._connection.receive_reply()
        except Lost as error:
            raise OSError(errno.ECONNRESET, str(error)) from error
        if reply.error:
            raise OSError(reply.error, "the server answered with an error")
