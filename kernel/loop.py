# SPDX-License-Identifier: Apache-2.0
"""Loop devices with direct I/O over files.

A loop device is the kernel's own state, so none is kept here: what is attached is read
from sysfs.  All calls need root.

Source: loop(4), Linux `include/uapi/linux/loop.h`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LoopDevice",
    "attach",
    "attached",
    "detach",
    "discard",
    "refresh_size",
]

_CONTROL = "/dev/loop-control"
_CTL_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_CLR_FD = 0x4C01
_GET_STATUS64 = 0x4C05
_SET_CAPACITY = 0x4C07
#: struct loop_info64; its first member is the filesystem of the backing file.
_INFO = struct.Struct("=5Q 4I 64s 64s 32s 2Q")
#: struct loop_config: fd, block size, struct loop_info64, reserved.
_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 64x")
_FLAG_READ_ONLY = 1
_FLAG_PARTSCAN = 8
_FLAG_DIRECT_IO = 16
#: Another program may take the free device first; so often it is tried again.
_TRIES = 64
#: Logical sectors, in which partition tables of images count [bytes].
_SECTOR_BYTES = 512


@dataclass(frozen=True)
class LoopDevice:
    """One attached loop device.

    Attributes:
        path: "/dev/loop3".
        backing_file: absolute path; as the kernel shows it, with " (deleted)" if so.
        backing_dev: ``st_dev`` of the backing file: tells a mount from a later one on
            the same path.
        read_only: writes are refused.
        direct_io: the backing file is read and written without the page cache.
    """

    path: str
    backing_file: str
    backing_dev: int
    read_only: bool
    direct_io: bool


def attach(file: os.PathLike[str] | str, *, read_only: bool) -> LoopDevice:
    """Put a free loop device over a file.

    Direct I/O is asked for first.  Where the kernel refuses it the page cache is used,
    and the result says so.

    Args:
        file: to be opened for reading, and for writing unless `read_only`.
        read_only: the device refuses writes.

    Raises:
        OSError: the file cannot be opened, or no device can be had.
    """
    mode = os.O_RDONLY if read_only else os.O_RDWR
    flags = _FLAG_PARTSCAN | (_FLAG_READ_ONLY if read_only else 0)
    backing = os.open(file, mode | os.O_CLOEXEC)
    try:
        try:
            number = _configure(backing, flags | _FLAG_DIRECT_IO)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            number = _configure(backing, flags)
    finally:
        os.close(backing)
    return _read(Path(f"/sys/block/loop{number}"))


def _configure(backing: int, flags: int) -> int:
    """Configure a free device; its number."""
    with _opened(_CONTROL, os.O_RDWR) as control:
        for _ in range(_TRIES):
            number: int = fcntl.ioctl(control, _CTL_GET_FREE)
            config = _CONFIG.pack(
                backing, _SECTOR_BYTES, *[0] * 8, flags, b"", b"", b"", 0, 0
            )
            with _opened(f"/dev/loop{number}", os.O_RDWR) as device:
                try:
                    fcntl.ioctl(device, _CONFIGURE, config)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    continue
            return number
    raise OSError(errno.EBUSY, "every free loop device was taken by other programs")


def detach(path: str) -> None:
    """Detach a device; its data is flushed to the backing file first.

    Raises:
        OSError: EBUSY: it is mounted or held.  Another error: the flush failed, and the
            device stays.
    """
    with _opened(path, os.O_RDONLY | os.O_EXCL) as device:
        os.fsync(device)
        fcntl.ioctl(device, _CLR_FD)


def discard(path: str) -> None:
    """Detach a device whose backing file is gone; what it did not write is lost."""
    with _opened(path, os.O_RDONLY) as device:
        fcntl.ioctl(device, _CLR_FD)


def refresh_size(path: str) -> None:
    """Make a device as large as its backing file is now."""
    with _opened(path, os.O_RDONLY) as device:
        fcntl.ioctl(device, _SET_CAPACITY, 0)


def attached(folder: os.PathLike[str] | str) -> list[LoopDevice]:
    """List the devices over files right below a folder, by number."""
    prefix = os.fspath(folder).rstrip("/") + "/"
    found = []
    for path in Path("/sys/block").glob("loop*"):
        with contextlib.suppress(OSError):
            device = _read(path)
            if device.backing_file.startswith(prefix):
                found.append(device)
    return sorted(found, key=lambda device: int(re.sub(r"\D", "", device.path)))


def _read(block: Path) -> LoopDevice:
    loop = block / "loop"
    with _opened(f"/dev/{block.name}", os.O_RDONLY) as device:
        info = fcntl.ioctl(device, _GET_STATUS64, bytes(_INFO.size))
    return LoopDevice(
        path=f"/dev/{block.name}",
        backing_dev=_INFO.unpack(info)[0],
        backing_file=(loop / "backing_file").read_text().rstrip("\n"),
        read_only=(block / "ro").read_text().strip() == "1",
        direct_io=(loop / "dio").read_text().strip() == "1",
    )


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
