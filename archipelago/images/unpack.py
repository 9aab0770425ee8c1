# SPDX-License-Identifier: Apache-2.0
"""Packed images, unpacked as they are read.

gzip, xz and bzip2 by the standard library, zstd by its command.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from archipelago.errors import UsageError
from archipelago.images.reader import FdReader

__all__ = ["unpacked"]

#: How much is handed to zstd at once [bytes].
_PIECE_BYTES = 1 << 20


def _gzip(source: IO[bytes]) -> io.BufferedIOBase:
    return gzip.GzipFile(fileobj=source, mode="rb")


def _xz(source: IO[bytes]) -> io.BufferedIOBase:
    return lzma.LZMAFile(source)


def _bzip2(source: IO[bytes]) -> io.BufferedIOBase:
    return bz2.BZ2File(source)


_OPEN: dict[str, Callable[[IO[bytes]], io.BufferedIOBase]] = {
    "gz": _gzip,
    "xz": _xz,
    "bz2": _bzip2,
}


@contextlib.contextmanager
def unpacked(packed: FdReader, format_name: str, name: str) -> Iterator[Unpacked]:
    """Unpack a stream while the context lasts.

    Args:
        packed: from its first byte on.
        format_name: "gz", "xz", "bz2" or "zst".
        name: of the file, for messages.
    """
    opened = _OPEN.get(format_name)
    if opened is None:
        with _zstd(packed, name) as plain:
            yield plain
    else:
        with opened(io.BufferedReader(packed, _PIECE_BYTES)) as plain_file:
            yield Unpacked(plain_file.readinto, packed.cancel, name)


class Unpacked:
    """The bytes that a packed stream stands for.

    Args:
        read: fills a part of a buffer, as `io.RawIOBase.readinto`.
        cancel: ends the reading of the packed stream, from any thread.
        name: of the file, for messages.
    """

    def __init__(
        self,
        read: Callable[[memoryview], int],
        cancel: Callable[[], None],
        name: str,
    ) -> None:
        self._read = read
        self.cancel = cancel
        self._name = name

    def readinto(self, view: memoryview) -> int:
        """Fill a part of a buffer; 0 at the end.

        Raises:
            UsageError: the stream is damaged or cut off.
        """
        try:
            return self._read(view)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise self._damaged(error) from error
        except OSError as error:
            if error.errno is None:  # bz2's way to say that the data is no bzip2
                raise self._damaged(error) from error
            raise

    def wait_readable(self) -> None:
        """Reading waits by itself."""

    def _damaged(self, error: Exception) -> UsageError:
        why = str(error).strip().rstrip(".")
        return UsageError(
            f"{self._name} is damaged or was not copied whole: get it again ({why})"
        )


@contextlib.contextmanager
def _zstd(packed: FdReader, name: str) -> Iterator[Unpacked]:
    if shutil.which("zstd") is None:
        raise UsageError(
            f"{name} is packed by zstd, which needs the command zstd: apt install "
            "zstd, or unpack it elsewhere"
        )
    with tempfile.TemporaryFile() as said:
        command = subprocess.Popen(
            ["zstd", "-q", "-d", "-c"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
        )
        feeder = _Feeder(packed, command)
        plain = command.stdout
        assert plain is not None

        def read(view: memoryview) -> int:
            got = os.readv(plain.fileno(), [view])
            if got == 0 and len(view):
                feeder.raise_for_error()
                if command.wait():
                    said.seek(0)
                    lines = said.read().decode(errors="replace").split("\n")
                    raise EOFError(next((s for s in lines if s.strip()), "zstd failed"))
            return got

        def cancel() -> None:
            packed.cancel()
            command.kill()

        try:
            feeder.start()
            yield Unpacked(read, cancel, name)
        finally:
            command.kill()
            packed.cancel()
            feeder.end()
            plain.close()
            command.wait()


class _Feeder:
    """A thread that hands a packed stream to a command."""

    def __init__(self, packed: FdReader, command: subprocess.Popen[bytes]) -> None:
        assert command.stdin is not None
        self._packed = packed
        self._into = command.stdin
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._feed, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Wait for its end: the command has ended, and the stream is cancelled."""
        if self._thread.ident is not None:
            self._thread.join()

    def raise_for_error(self) -> None:
        """Raise what hindered it."""
        if self._error is not None:
            raise self._error

    def _feed(self) -> None:
        room = bytearray(_PIECE_BYTES)
        try:
            with memoryview(room) as view, self._into:
                while got := self._packed.readinto(view):
                    self._into.write(view[:got])
        except BrokenPipeError:
            pass  # the command says why it ended
        except BaseException as error:
            self._error = error
