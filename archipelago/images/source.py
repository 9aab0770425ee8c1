# SPDX-License-Identifier: Apache-2.0
"""Where an import reads from: a file with holes, a stream, or what QEMU reads.

A source hands out one block after another to any number of threads.  Which kind it is
follows from the format that the caller names, or from the file's signature.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

from archipelago.errors import UsageError
from archipelago.images.containers import check_container
from archipelago.images.qemu import qemu_image
from archipelago.images.reader import FdReader
from archipelago.images.signature import (
    FORMATS,
    HEAD_BYTES,
    TAIL_BYTES,
    Signature,
    Way,
    recognise,
)
from archipelago.images.unpack import unpacked

__all__ = ["Source", "open_source"]


class Source(Protocol):
    """What an import reads."""

    @property
    def total_bytes(self) -> int | None:
        """Size of the image [bytes]; None until a stream has ended."""

    @property
    def done_bytes(self) -> int:
        """How far blocks were handed out [bytes]."""

    def turn(self) -> contextlib.AbstractContextManager[object]:
        """Enter when the next block is likely to come without waiting."""

    def fill(self, block: memoryview) -> tuple[int, int] | None:
        """Read the next block that is not a hole; within a `turn`.

        Args:
            block: filled from its start.

        Returns:
            (number of the block, bytes read), or None at the end.
        """

    def cancel(self) -> None:
        """Let threads that wait for bytes get an error; from any thread."""


# ---- what can be read anywhere -------------------------------------------------------


class _Medium(Protocol):
    """Bytes that can be read in any order, by several threads."""

    def read_into(self, view: memoryview, offset: int) -> None: ...

    def next_data(self, offset: int) -> tuple[int, int]: ...

    def cancel(self) -> None: ...


class _File:
    """A raw file or block device.

    Args:
        fd: open; stays the caller's.
        size: [bytes].
        name: for messages.
    """

    def __init__(self, fd: int, size: int, name: str) -> None:
        self._fd = fd
        self._size = size
        self._name = name

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill a buffer."""
        done = 0
        while done < len(view):
            got = os.preadv(self._fd, [view[done:]], offset + done)
            if got == 0:
                raise UsageError(f"{self._name} became shorter while it was read")
            done += got

    def next_data(self, offset: int) -> tuple[int, int]:
        """The next range with data at or behind `offset`; (size, size) if none is.

        Source: lseek(2), SEEK_DATA and SEEK_HOLE.
        """
        try:
            start = os.lseek(self._fd, offset, os.SEEK_DATA)
            end = os.lseek(self._fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self._size, self._size
            if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.ESPIPE):
                return offset, self._size
            raise
        return min(start, self._size), min(end, self._size)

    def cancel(self) -> None:
        """A file keeps no reader waiting."""


class _Scattered:
    """A source over a medium: its holes are skipped.

    Args:
        medium: where the bytes are.
        size: of the image [bytes].
        block_size: [bytes].
    """

    def __init__(self, medium: _Medium, size: int, block_size: int) -> None:
        self._medium = medium
        self._size = size
        self._block_size = block_size
        self._guard = threading.Lock()
        self._next = 0
        self._data_end = 0

    @property
    def total_bytes(self) -> int | None:
        """Size of the image [bytes]."""
        return self._size

    @property
    def done_bytes(self) -> int:
        """How far blocks were handed out [bytes]."""
        return min(self._next, self._size)

    def turn(self) -> contextlib.AbstractContextManager[object]:
        """Threads read side by side."""
        return contextlib.nullcontext()

    def fill(self, block: memoryview) -> tuple[int, int] | None:
        """Read the next block that is not a hole."""
        with self._guard:
            offset = self._take()
        if offset is None:
            return None
        length = min(self._block_size, self._size - offset)
        with block[:length] as part:
            self._medium.read_into(part, offset)
        return offset // self._block_size, length

    def cancel(self) -> None:
        """Let threads that read get an error."""
        self._medium.cancel()

    def _take(self) -> int | None:
        """The offset of the next block with data, or None."""
        if self._next >= self._data_end:
            if self._next >= self._size:
                return None
            start, end = self._medium.next_data(self._next)
            self._next = start - start % self._block_size
            self._data_end = end
            if start >= self._size:
                self._next = self._size
                return None
        offset = self._next
        self._next += self._block_size
        return offset


# ---- what can only be read from its start to its end ---------------------------------


class _Bytes(Protocol):
    """Bytes that come one after another."""

    def readinto(self, view: memoryview) -> int: ...

    def wait_readable(self) -> None: ...

    def cancel(self) -> None: ...


class _Stream:
    """A source over a stream.

    Args:
        flow: where the bytes come from.
        name: for messages.
        claims: refuse a container of which the end tells.
        begun: first bytes of the flow, read before.
    """

    def __init__(
        self, flow: _Bytes, name: str, *, claims: bool, begun: bytes = b""
    ) -> None:
        self._flow = flow
        self._name = name
        self._claims = claims
        self._begun = begun
        self._tail = b""
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

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One thread after another, each when there is something to read."""
        with self._guard:
            if not self._begun and not self._ended:
                self._flow.wait_readable()
            yield

    def fill(self, block: memoryview) -> tuple[int, int] | None:
        """Read the next block."""
        begun = self._begun[: len(block)]
        block[: len(begun)] = begun
        self._begun = self._begun[len(begun) :]
        length = len(begun)
        while length < len(block) and not self._ended:
            with block[length:] as rest:
                got = self._flow.readinto(rest)
            self._ended = got == 0
            length += got
        self._tail = (self._tail + bytes(block[:length][-TAIL_BYTES:]))[-TAIL_BYTES:]
        if self._ended and self._claims:
            _refuse(recognise(b"", self._tail), self._name, "as a stream")
        if length == 0:
            return None
        number = self._number
        self._number += 1
        self._done += length
        return number, length

    def cancel(self) -> None:
        """Let a thread that waits for bytes get an error."""
        self._flow.cancel()


# ---- which of them -------------------------------------------------------------------


@contextlib.contextmanager
def open_source(
    image: str | os.PathLike[str] | int, block_size: int, image_format: str | None
) -> Iterator[Source]:
    """Open an image.

    Args:
        image: a path, a descriptor, or "-" for standard input.
        block_size: [bytes].
        image_format: one of `FORMATS`; None: what its signature says.

    Raises:
        UsageError: it is empty, names another file, or cannot be read right.
        OSError: it cannot be opened.
    """
    if image_format is not None and image_format not in FORMATS:
        raise UsageError(
            f"there is no image format {image_format!r}: choose from "
            + ", ".join(FORMATS)
        )
    with contextlib.ExitStack() as opened:
        if image == "-" or isinstance(image, int):
            fd = sys.stdin.fileno() if image == "-" else int(image)
            name = "standard input" if image == "-" else "the image"
        else:
            name = os.fspath(image)
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, fd)
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{name} is a directory: give a file or a block device")
        if (stat.S_ISREG(mode) or stat.S_ISBLK(mode)) and not _is_begun(fd, image):
            source = _of_file(opened, fd, name, block_size, image_format)
        else:
            source = _of_stream(opened, fd, name, image_format)
        yield source


def _is_begun(fd: int, image: object) -> bool:
    """True if standard input is a file of which something was read already."""
    return image == "-" and os.lseek(fd, 0, os.SEEK_CUR) != 0


def _of_file(
    opened: contextlib.ExitStack,
    fd: int,
    name: str,
    block_size: int,
    image_format: str | None,
) -> Source:
    size = os.lseek(fd, 0, os.SEEK_END)
    if size == 0:
        raise UsageError(f"{name} is empty: there is nothing to import")
    raw = _Scattered(_File(fd, size, name), size, block_size)
    if image_format == "raw":
        return raw
    head = os.pread(fd, HEAD_BYTES, 0)
    tail = os.pread(fd, TAIL_BYTES, size - TAIL_BYTES) if size > TAIL_BYTES else b""
    found = _claimed(head, tail, name, image_format)
    if found is None:
        return raw
    if found.way is Way.UNPACK:
        os.lseek(fd, 0, os.SEEK_SET)
        return _unpacked(opened, FdReader(fd), name, found)
    if found.way is not Way.QEMU:
        raise _refusal(found, name)
    check_container(fd, size, name, found.format)
    served = opened.enter_context(qemu_image(fd, name, found.driver))
    if served.size == 0:
        raise UsageError(f"{name} is empty: there is nothing to import")
    return _Scattered(served, served.size, block_size)


def _of_stream(
    opened: contextlib.ExitStack, fd: int, name: str, image_format: str | None
) -> Source:
    if image_format == "raw":
        reader = opened.enter_context(contextlib.closing(FdReader(fd)))
        return _Stream(reader, name, claims=False)
    if image_format is not None:
        raise UsageError(
            f"{name} is a stream, of which only raw images can be read: save it to a "
            "file and import that"
        )
    head = _begin(fd)
    found = _claimed(head, b"", name, None)
    reader = FdReader(fd, head)
    if found is not None and found.way is Way.UNPACK:
        return _unpacked(opened, reader, name, found)
    opened.callback(reader.close)
    _refuse(found, name, "as a stream")
    return _Stream(reader, name, claims=True)


def _begin(fd: int) -> bytes:
    """Read the first bytes of a stream, in the caller's thread: a signal ends that."""
    head = b""
    while len(head) < HEAD_BYTES:
        got = os.read(fd, HEAD_BYTES - len(head))
        if not got:
            break
        head += got
    return head


def _unpacked(
    opened: contextlib.ExitStack, packed: FdReader, name: str, found: Signature
) -> Source:
    """A stream of what a packed file holds, which must be raw."""
    opened.callback(packed.close)
    flow = opened.enter_context(unpacked(packed, found.format, name))
    head = bytearray(HEAD_BYTES)
    length = 0
    with memoryview(head) as view:
        while length < HEAD_BYTES and (got := flow.readinto(view[length:])):
            length += got
    begun = bytes(head[:length])
    _refuse(recognise(begun, b""), f"what {name} holds", "packed")
    return _Stream(flow, f"what {name} holds", claims=True, begun=begun)


def _claimed(
    head: bytes, tail: bytes, name: str, image_format: str | None
) -> Signature | None:
    """What an image is; refuses one that is not what the caller says."""
    found = recognise(head, tail)
    if image_format is not None and (found is None or found.format != image_format):
        looks = "a raw image" if found is None else found.title
        raise UsageError(f"{name} is no {image_format} image: it looks like {looks}")
    return found


def _refuse(found: Signature | None, name: str, how: str) -> None:
    """Refuse a container where only a raw image can be read."""
    if found is None:
        return
    if found.way is Way.REFUSE:
        raise _refusal(found, name)
    raise UsageError(
        f"{name} is {found.title}, which cannot be read {how}: save it to a file and "
        "import that, or say --format raw to import its bytes as they are"
    )


def _refusal(found: Signature, name: str) -> UsageError:
    return UsageError(
        f"{name} is {found.title}, which import does not read: {found.cure}; --format "
        "raw imports its bytes as they are"
    )
