# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a segment.

    XsegError (OSError)
    |-- you misused it
    |   |-- ClosedError     closed or freed before this call    EBADF
    |   |-- BusyError       two at once, or held by another     EBUSY
    |   `-- InvalidArgument range, alignment, name, unknown op  EINVAL
    |-- try again
    |   |-- WouldBlock      ring full, or nothing there yet     EAGAIN
    |   |-- SegmentFull     no descriptor or buffer is free     ENOBUFS
    |   `-- TimedOut        no answer in the time given         ETIMEDOUT
    |-- the other side
    |   |-- PeerDied        died with the request in hand       EOWNERDEAD
    |   |-- PortUnbound     no process is bound to that port    EPIPE
    |   |-- Cancelled       stopped before it served            ECANCELED
    |   `-- NotSupported    knows the op, does not offer it     EOPNOTSUPP
    `-- the world
        |-- NotFound        no such segment, volume or object   ENOENT
        |-- AlreadyExists   the name is taken                   EEXIST
        |-- NotPermitted    another user's, or not trusted      EACCES, EPERM
        |-- ReadOnly        a snapshot, or opened read-only     EROFS
        |-- NoSpace         storage or shared memory is full    ENOSPC
        |-- StaleVersion    an older fence or version           ESTALE
        |-- FormatMismatch  a layout this build cannot speak    EPROTONOSUPPORT
        `-- DataCorrupt     a checksum or header is wrong       EBADMSG

`xseg._errors` holds the one table from errno to these.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "XsegError",
    "ClosedError",
    "BusyError",
    "InvalidArgument",
    "WouldBlock",
    "SegmentFull",
    "TimedOut",
    "PeerDied",
    "PortUnbound",
    "Cancelled",
    "NotSupported",
    "NotFound",
    "AlreadyExists",
    "NotPermitted",
    "ReadOnly",
    "NoSpace",
    "StaleVersion",
    "FormatMismatch",
    "DataCorrupt",
]


class XsegError(OSError):
    """Root of the package's errors; `errno` is always set.

    Attributes:
        msgid: Stable name of the error for scripts, "segment-full".
        exit_code: Exit status of a command that ends with it.
        retryable: True if the same call may succeed later, unchanged.
    """

    msgid: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class ClosedError(XsegError):
    """The object was closed, freed or handed back before this call."""

    msgid = "closed"


class BusyError(XsegError):
    """Two threads at once, memory still referred to, or held by somebody else."""

    msgid = "busy"
    exit_code = 5


class InvalidArgument(XsegError, ValueError):
    """The caller's mistake: range, alignment, name, unknown op."""

    msgid = "invalid-argument"
    exit_code = 2


class WouldBlock(XsegError, BlockingIOError):
    """The ring is full, or nothing is there yet."""

    msgid = "would-block"
    exit_code = 5
    retryable = True


class SegmentFull(XsegError):
    """No request descriptor, port or buffer of that size is free."""

    msgid = "segment-full"
    exit_code = 7
    retryable = True


class TimedOut(XsegError, TimeoutError):
    """The wait ended without an answer."""

    msgid = "timed-out"
    retryable = True


class PeerDied(XsegError):
    """The peer that held the request died; whether it took effect is unknown."""

    msgid = "peer-died"
    exit_code = 8
    retryable = True


class PortUnbound(XsegError, BrokenPipeError):
    """No process is bound to the port: the peer is not running."""

    msgid = "port-unbound"
    exit_code = 8
    retryable = True


class Cancelled(XsegError):
    """The peer was stopped before it served the request."""

    msgid = "cancelled"
    exit_code = 8
    retryable = True


class NotSupported(XsegError):
    """The peer knows the op and does not offer it."""

    msgid = "not-supported"


class NotFound(XsegError, FileNotFoundError):
    """No such segment, volume, object or port."""

    msgid = "not-found"
    exit_code = 3


class AlreadyExists(XsegError, FileExistsError):
    """The name is taken."""

    msgid = "exists"
    exit_code = 4


class NotPermitted(XsegError, PermissionError):
    """Another user's, or a file that anybody could have put there."""

    msgid = "not-permitted"


class ReadOnly(XsegError):
    """A snapshot, or opened read-only."""

    msgid = "read-only"
    exit_code = 6


class NoSpace(XsegError):
    """The storage or the shared memory is full."""

    msgid = "no-space"
    exit_code = 7
    retryable = True


class StaleVersion(XsegError):
    """An older fence, version or handle than the current one."""

    msgid = "stale"


class FormatMismatch(XsegError):
    """A layout or format version, or a feature bit, that this build does not speak."""

    msgid = "format-mismatch"
    exit_code = 9


class DataCorrupt(XsegError):
    """A checksum or digest does not match, or a header contradicts itself."""

    msgid = "corrupt"
    exit_code = 9
