# SPDX-License-Identifier: Apache-2.0
"""Read a descriptor from where it stands to its end, until another thread ends that."""

from __future__ import annotations

import io
import os
import select

__all__ = ["FdReader"]


class FdReader(io.RawIOBase):
    """A stream that was begun: what was read of it already comes first.

    Args:
        fd: open; stays the caller's.
        begun: its first bytes, read before.
    """

    def __init__(self, fd: int, begun: bytes = b"") -> None:
        super().__init__()
        self._fd = fd
        self._begun = begun
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._cancelled = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a part of a buffer; 0 at the end.

        Raises:
            InterruptedError: another thread has called `cancel`.
        """
        if self._begun:
            length = min(len(buffer), len(self._begun))
            buffer[:length] = self._begun[:length]
            self._begun = self._begun[length:]
            return length
        self.wait_readable()
        return os.readv(self._fd, [buffer])

    def wait_readable(self) -> None:
        """Return once reading does not wait.

        Raises:
            InterruptedError: another thread has called `cancel`.
        """
        if self._begun:
            return
        while not self._cancelled:
            if any(fd == self._fd for fd, _ in self._poll.poll()):
                return
        raise InterruptedError("the reading of the image was ended")

    def cancel(self) -> None:
        """Let a thread that waits for bytes get an error; from any thread."""
        self._cancelled = True
        if not self.closed:
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Give back what waiting takes; the descriptor stays open."""
        if not self.closed:
            super().close()
            os.close(self._wake)
