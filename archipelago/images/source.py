# SPDX-License-Identifier: Apache-2.0
"""Where an import reads from: a raw file with holes, a stream, or what qemu-img reads.

A source hands out one block after another to any number of threads.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Protocol

from archipelago.errors import UsageError

#: First bytes of formats that qemu-img is asked to read: (offset, bytes, its name).
#: Sources: QEMU docs/interop/qcow2.rst, VMware VMDK 5.0, [MS-VHDX], Microsoft's VHD
#: specification 1.0 (also as a footer), VirtualBox VDICore.h.
_FORMATS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)


class Source(Protocol):
    """What an import reads."""

    @property
    def total_bytes(self) -> int | None:
        """Size of the image [bytes]; None until a stream has ended."""

    @property
    def done_bytes(self) -> int:
        """How far blocks were handed out [bytes]."""

    def fill(self, block: memoryview) -> tuple[int, int] | None:
        """Read the next block that is not a hole.

        Args:
            block: filled from its start.

        Returns:
            (number of the block, bytes read), or None at the end.
        """


class RawFile:
    """A file that can be read anywhere; its holes are skipped.

    Args:
        fd: open file or block device; stays the caller's.
        size: [bytes].
        block_size: [bytes].
    """

    def __init__(self, fd: int, size: int, block_size: int) -> None:
        self._fd = fd
        self._size = size
        self._block_size = block_size
        self._guard = threading.Lock()
        self._next = 0
        self._data_end = 0

    @property
    def total_bytes(self) -> int | None:
        """Size of the file [bytes]."""
        return self._size

    @property
    def done_bytes(self) -> int:
        """How far blocks were handed out [bytes]."""
        return min(self._next, self._size)

    def fill(self, block: memoryview) -> tuple[int, int] | None:
        """Read the next block that is not a hole."""
        with self._guard:
            offset = self._take()
        if offset is None:
            return None
        length = min(self._block_size, self._size - offset)
        done = 0
        while done < length:
            got = os.preadv(self._fd, [block[done:length]], offset + done)
            if got == 0:
                raise UsageError("the image became shorter while it was read")
            done += got
        return offset // self._block_size, length

    def _take(self) -> int | None:
        """The offset of the next block with data, or None."""
        if self._next >= self._data_end:
            if self._next >= self._size:
                return None
            start, end = _next_data(self._fd, self._next, self._size)
            self._next = start - start % self._block_size
            self._data_end = end
            if start >= self._size:
                self._next = self._size
                return None
        offset = self._next
        self._next += self._block_size
        return offset


def _next_data(fd: int, offset: int, size: int) -> tuple[int, int]:
    """The next range with data at or behind `offset`; (size, size) if there is none.

    Source: lseek(2), SEEK_DATA and SEEK_HOLE.
    """
    try:
        start = os.lseek(fd, offset, os.SEEK_DATA)
        return min(start, size), min(os.lseek(fd, start, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.ESPIPE):
            return offset, size
        raise


class Stream:
    """Something that can only be read from its start to its end.

    Args:
        fd: open; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._guard = threading.Lock()
        self._number = 0
        self._done = 0
        self._ended = False

    @property
    def total_bytes(self) -> int | None:
        """Size of what was read, once it has ended [bytes]."""
        return self._done if self._ended else None

    @property
    def done_bytes(self) -> int:
        """How much was read [bytes]."""
        return self._done

    def fill(self, block: memoryview) -> tuple[int, int] | None:
        """Read the next block."""
        with self._guard:
            length = 0
            while length < len(block) and not self._ended:
                got = os.readv(self._fd, [block[length:]])
                self._ended = got == 0
                length += got
            if length == 0:
                return None
            number = self._number
            self._number += 1
            self._done += length
            return number, length


@contextlib.contextmanager
def open_source(
    image: str | os.PathLike[str] | int, block_size: int, scratch: str | None
) -> Iterator[Source]:
    """Open an image.

    Args:
        image: a path, a descriptor, or "-" for standard input.
        block_size: [bytes].
        scratch: directory for the raw copy of an image in another format; None: the
            system's temporary directory.

    Raises:
        UsageError: it is empty, or qemu-img cannot read it.
        OSError: it cannot be opened.
    """
    if image == "-":
        yield Stream(sys.stdin.fileno())
        return
    if isinstance(image, int):
        yield _of_descriptor(image, block_size)
        return
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        format_name = _detect(fd)
        if format_name is None:
            yield _of_descriptor(fd, block_size)
            return
        with _converted(os.fspath(image), format_name, scratch) as raw:
            yield _of_descriptor(raw, block_size)
    finally:
        os.close(fd)


def _of_descriptor(fd: int, block_size: int) -> Source:
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        size = os.lseek(fd, 0, os.SEEK_END)
        if size == 0:
            raise UsageError("the image is empty: there is nothing to import")
        return RawFile(fd, size, block_size)
    if stat.S_ISDIR(mode):
        raise UsageError("the image is a directory: give a file or a block device")
    return Stream(fd)


def _detect(fd: int) -> str | None:
    """The format of a file that is not raw, by its first bytes."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    head = os.pread(fd, 128, 0)
    for offset, magic, name in _FORMATS:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None


@contextlib.contextmanager
def _converted(path: str, format_name: str, scratch: str | None) -> Iterator[int]:
    """Let qemu-img make a sparse raw copy; yields a descriptor of it."""
    facts = json.loads(
        _qemu_img("info", "--output=json", "-f", format_name, "--", path) or "{}"
    )
    backing = facts.get("backing-filename")
    if backing:
        raise UsageError(
            f"{path} is an overlay over {backing}: flatten it first with "
            f"\"qemu-img convert -O raw '{path}' FILE\" and import FILE"
        )
    _check(path, format_name)
    # Without a name it is gone with its last user, however that ends.
    with tempfile.TemporaryFile(dir=scratch) as raw:
        copy = f"/proc/self/fd/{raw.fileno()}"
        _qemu_img("convert", "-f", format_name, "-O", "raw", "--", path, copy, keep=raw)
        yield raw.fileno()


def _check(path: str, format_name: str) -> None:
    """Refuse a damaged image: what is cut off would be read as zeros.

    Source: qemu-img(1), exit status of check.
    """
    done = _run_qemu_img("check", "-f", format_name, "--", path)
    if done.returncode in (1, 2):
        raise UsageError(
            f"{path} is damaged or was not copied whole: get it again, or look with "
            f"\"qemu-img check '{path}'\""
        )


def _qemu_img(*arguments: str, keep: IO[bytes] | None = None) -> str:
    done = _run_qemu_img(*arguments, keep=keep)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it failed"]
        raise UsageError(f"qemu-img cannot read the image: {lines[-1]}")
    return done.stdout


def _run_qemu_img(
    *arguments: str, keep: IO[bytes] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["qemu-img", *arguments],
            capture_output=True,
            text=True,
            check=False,
            pass_fds=() if keep is None else (keep.fileno(),),
        )
    except FileNotFoundError:
        raise UsageError(
            "this image format needs qemu-img: apt install qemu-utils, or convert it "
            "to raw elsewhere"
        ) from None
