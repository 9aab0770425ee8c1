# SPDX-License-Identifier: Apache-2.0
"""Export: a volume or snapshot as a raw image, its holes left out.

A file gets its name when it is whole and durable, so that a failure leaves nothing
half done, and an image that was there stays.  A block device is written in place, and
synced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from archipelago.errors import ArchipelagoError, UsageError
from archipelago.units import format_size
from archipelago.volume_handle import Volume
from xseg.constants import Reference
from xseg.errors import XsegError

if TYPE_CHECKING:
    from archipelago.client import Client

_PIECE_BYTES = 4 << 20

Progress = Callable[[int, "int | None"], None]


def export_volume(
    client: Client,
    name: str,
    path: str | os.PathLike[str],
    progress: Progress | None = None,
) -> None:
    """Write a volume or snapshot to a raw file.

    A volume that is in use is exported as it changes; export a snapshot of it instead.

    Args:
        client: the connection.
        name: what to export.
        path: file to write; "-" for standard output.  A device is written in place;
            what it has beyond the volume's size stays.
        progress: called now and then with what is done and how much there is [bytes].

    Raises:
        VolumeNotFound: there is none.
        UsageError: the path names no file.
        OSError: the file cannot be written, or has not enough room.
    """
    target = os.fspath(path)
    if not target:
        raise UsageError("the name of the file to write is empty")
    with (
        client.open(name, read_only=True) as volume,
        _named("standard output" if target == "-" else target),
    ):
        if target == "-":
            _stream(volume, sys.stdout.fileno(), progress)
        elif _is_special(target):
            fd = _open_special(target)
            try:
                _stream(volume, fd, progress)
            finally:
                os.close(fd)
        else:
            # Through links: they stay, and the file is replaced where it lies.
            _to_file(volume, os.path.realpath(target), progress)


@contextlib.contextmanager
def _named(target: str) -> Iterator[None]:
    """Say in errors of the system which file was to be written.

    They name the file aside, or none: it would look as if the store were full.
    """
    try:
        yield
    except (XsegError, ArchipelagoError, BrokenPipeError):
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from error


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _open_special(path: str) -> int:
    """Open a device or a pipe; a block device that is mounted or in use is refused."""
    exclusive = os.O_EXCL if stat.S_ISBLK(os.stat(path).st_mode) else 0
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC | exclusive)


def _to_file(volume: Volume, path: str, progress: Progress | None) -> None:
    """Write beside the file's name, make it durable, then give it the name."""
    aside = f"{path}.{os.getpid()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        # Within: a signal may come between the file's making and the next line.
        fd = os.open(aside, flags, 0o666)
        try:
            with contextlib.suppress(FileNotFoundError):
                # A user that could not read the image there cannot read this one.
                os.fchmod(fd, stat.S_IMODE(os.stat(path).st_mode))
            os.ftruncate(fd, volume.size)
            for offset, piece in _pieces(volume, progress):
                _write_all(fd, piece, offset)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise


def _pieces(
    volume: Volume, progress: Progress | None
) -> Iterator[tuple[int, memoryview]]:
    """Yield (offset, bytes) of everything that is not zero."""
    size = volume.size
    buffer = bytearray(_PIECE_BYTES)
    with memoryview(buffer) as view:
        for run in volume.extents(0, size):
            end = min(run.offset + run.size, size)
            if run.kind is not Reference.ZERO:
                for offset in range(run.offset, end, _PIECE_BYTES):
                    piece = view[: min(_PIECE_BYTES, end - offset)]
                    volume.pread_into(piece, offset)
                    yield offset, piece
                    if progress is not None:
                        progress(offset + len(piece), size)
            if progress is not None:
                progress(end, size)


def _stream(volume: Volume, fd: int, progress: Progress | None) -> None:
    """Write everything in order, zeros too; durable where that means something.

    A disk's last bytes wait in the page cache, and an error of theirs too.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISBLK(mode):
        _require_room(fd, volume.size)
    with memoryview(bytes(_PIECE_BYTES)) as zeros:
        done = 0
        for offset, piece in _pieces(volume, progress):
            _write_zeros(fd, zeros, offset - done)
            _write_all(fd, piece, None)
            done = offset + len(piece)
        _write_zeros(fd, zeros, volume.size - done)
    if stat.S_ISBLK(mode) or stat.S_ISREG(mode):
        os.fsync(fd)


def _require_room(fd: int, size: int) -> None:
    """Refuse a device that is too small before anything of it is overwritten."""
    room = os.lseek(fd, 0, os.SEEK_END) - os.lseek(fd, 0, os.SEEK_SET)
    if room < size:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)}: the volume has {format_size(size)}, the "
            f"device {format_size(room)}",
        )


def _write_zeros(fd: int, zeros: memoryview, size: int) -> None:
    while size > 0:
        length = min(size, len(zeros))
        _write_all(fd, zeros[:length], None)
        size -= length


def _write_all(fd: int, data: memoryview, offset: int | None) -> None:
    """Write all of it, at an offset or where the stream stands."""
    done = 0
    while done < len(data):
        if offset is None:
            done += os.write(fd, data[done:])
        else:
            done += os.pwrite(fd, data[done:], offset + done)
