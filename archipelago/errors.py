# SPDX-License-Identifier: Apache-2.0
r"""What can go wrong, as exceptions with stable numbers.

::

    ArchipelagoError                          exit 1
     +-- UsageError (ValueError)                   2
     +-- ConfigError (ValueError)                  2
     +-- NotRunning (ConnectionError)              8, retryable
     +-- NotAnswering (TimeoutError)              10, retryable
     +-- IoError (OSError)                         1
     +-- BlockError
     |    +-- BlockNotFound (LookupError)          3
     |    +-- DigestMismatch (ValueError)          9
     |    +-- BackendUnavailable (ConnectionError) 1, retryable
     |    +-- NoSpace (OSError)                    7, retryable
     +-- MapError
          +-- VolumeNotFound (FileNotFoundError)   3
          +-- VolumeExists (FileExistsError)       4
          +-- VolumeBusy (BlockingIOError)         5, retryable
          |    +-- LeaseHeld                       5, retryable
          +-- LeaseLost (PermissionError)          5
          +-- ReadOnlySnapshot (PermissionError)   6
          +-- NotSnapshot (ValueError)             2
          +-- MapCorrupt (ValueError)              9

Each class has an ``exit_code`` for commands, a ``msgid`` for programs, a ``number``
(the errno that crosses the segment, see ``xseg/error.h``) and ``retryable``.  The
message is one line for people: what, which, and what to do.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "ArchipelagoError",
    "BackendUnavailable",
    "BlockError",
    "BlockNotFound",
    "ConfigError",
    "DigestMismatch",
    "IoError",
    "LeaseHeld",
    "LeaseLost",
    "MapCorrupt",
    "MapError",
    "NoSpace",
    "NotAnswering",
    "NotRunning",
    "NotSnapshot",
    "ReadOnlySnapshot",
    "UsageError",
    "VolumeBusy",
    "VolumeExists",
    "VolumeNotFound",
    "from_errno",
    "from_reply",
    "to_reply",
]


class ArchipelagoError(Exception):
    """Root of all errors of this package.

    Attributes:
        exit_code: exit status of a command that ends with this error.
        msgid: stable name for programs.
        number: positive errno that stands for it on the segment.
        retryable: whether the same call may succeed later without any change.
    """

    exit_code: ClassVar[int] = 1
    msgid: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    default_number: ClassVar[int] = _errno.EIO
    #: As of an OSError; the same as `number`.
    errno: int | None

    def __init__(self, message: str, *, number: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.number = self.default_number if number is None else number
        self.errno = self.number

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.number)


def _rebuild(
    kind: type[ArchipelagoError], message: str, number: int
) -> ArchipelagoError:
    return kind(message, number=number)


class UsageError(ArchipelagoError, ValueError):
    """The caller's mistake: a name, size or argument that cannot be."""

    exit_code = 2
    msgid = "usage"
    default_number = _errno.EINVAL


class ConfigError(ArchipelagoError, ValueError):
    """A setting that cannot be."""

    exit_code = 2
    msgid = "config"
    default_number = _errno.EINVAL


class NotRunning(ArchipelagoError, ConnectionError):
    """No instance runs here, or the peer that is needed does not answer."""

    exit_code = 8
    msgid = "not-running"
    retryable = True
    default_number = _errno.EPIPE


class NotAnswering(ArchipelagoError, TimeoutError):
    """A supervisor or peer lives and does not answer: it hangs."""

    exit_code = 10
    msgid = "not-answering"
    retryable = True
    default_number = _errno.ETIMEDOUT


class IoError(ArchipelagoError, OSError):
    """The store failed, with no better name for how."""

    msgid = "io"
    default_number = _errno.EIO


class BlockError(ArchipelagoError):
    """Trouble with one stored object."""

    msgid = "block"


class BlockNotFound(BlockError, LookupError):
    """A stored object that should be there is not."""

    exit_code = 3
    msgid = "block-not-found"
    default_number = _errno.ENOENT


class DigestMismatch(BlockError, ValueError):
    """Stored bytes do not have the digest or checksum they should have."""

    exit_code = 9
    msgid = "digest-mismatch"
    default_number = _errno.EBADMSG


class BackendUnavailable(BlockError, ConnectionError):
    """The store cannot be reached now."""

    msgid = "backend-unavailable"
    retryable = True
    default_number = _errno.EOWNERDEAD


class NoSpace(BlockError, OSError):
    """The store is full."""

    exit_code = 7
    msgid = "no-space"
    retryable = True
    default_number = _errno.ENOSPC


class MapError(ArchipelagoError):
    """Trouble with one volume."""

    msgid = "map"


class VolumeNotFound(MapError, FileNotFoundError):
    """There is no volume or snapshot of that name."""

    exit_code = 3
    msgid = "not-found"
    default_number = _errno.ENOENT


class VolumeExists(MapError, FileExistsError):
    """The name is taken."""

    exit_code = 4
    msgid = "exists"
    default_number = _errno.EEXIST


class VolumeBusy(MapError, BlockingIOError):
    """The volume is open, or another change of it runs."""

    exit_code = 5
    msgid = "busy"
    retryable = True
    default_number = _errno.EBUSY


class LeaseHeld(VolumeBusy):
    """Another instance holds the volume's lease."""

    msgid = "lease-held"


class LeaseLost(MapError, PermissionError):
    """This instance held the lease and lost it: nothing more may be changed."""

    exit_code = 5
    msgid = "lease-lost"
    default_number = _errno.ESTALE


class ReadOnlySnapshot(MapError, PermissionError):
    """A change of something that never changes."""

    exit_code = 6
    msgid = "read-only"
    default_number = _errno.EROFS


class NotSnapshot(MapError, ValueError):
    """Only snapshots can be cloned, and this is a volume."""

    exit_code = 2
    msgid = "not-snapshot"
    default_number = _errno.EINVAL


class MapCorrupt(MapError, ValueError):
    """A header, layer or journal contradicts its checksum or itself."""

    exit_code = 9
    msgid = "corrupt"
    default_number = _errno.EBADMSG


_CLASSES: tuple[type[ArchipelagoError], ...] = (
    ArchipelagoError,
    UsageError,
    ConfigError,
    NotRunning,
    NotAnswering,
    IoError,
    BlockError,
    BlockNotFound,
    DigestMismatch,
    BackendUnavailable,
    NoSpace,
    MapError,
    VolumeNotFound,
    VolumeExists,
    VolumeBusy,
    LeaseHeld,
    LeaseLost,
    ReadOnlySnapshot,
    NotSnapshot,
    MapCorrupt,
)
_BY_MSGID = {kind.msgid: kind for kind in _CLASSES}

_BY_NUMBER: dict[int, type[ArchipelagoError]] = {
    _errno.EINVAL: UsageError,
    _errno.ENAMETOOLONG: UsageError,
    _errno.EOPNOTSUPP: UsageError,
    _errno.EPIPE: NotRunning,
    _errno.ECANCELED: NotRunning,
    _errno.EOWNERDEAD: BackendUnavailable,
    _errno.ETIMEDOUT: BackendUnavailable,
    _errno.ENOSPC: NoSpace,
    _errno.EDQUOT: NoSpace,
    _errno.ENOENT: VolumeNotFound,
    _errno.EEXIST: VolumeExists,
    _errno.EBUSY: VolumeBusy,
    _errno.ESTALE: LeaseLost,
    _errno.EROFS: ReadOnlySnapshot,
    _errno.EBADMSG: MapCorrupt,
    _errno.EPROTONOSUPPORT: MapCorrupt,
}

#: Classes for errors of stored objects that nobody knows by a name.
_BLOCK_BY_NUMBER: dict[int, type[ArchipelagoError]] = {
    _errno.ENOENT: BlockNotFound,
    _errno.EBADMSG: DigestMismatch,
    _errno.EPIPE: BackendUnavailable,
    _errno.ECANCELED: BackendUnavailable,
}


def from_errno(number: int, what: str, *, block: bool = False) -> ArchipelagoError:
    """Make the exception for an error number.

    Args:
        number: errno, of either sign.
        what: what was being done, "cannot read volume "v"".
        block: the errno speaks of a stored object, not of a volume.
    """
    number = abs(number)
    kind = _BY_NUMBER.get(number, IoError)
    if block:
        kind = _BLOCK_BY_NUMBER.get(number, kind)
    why = os.strerror(number).lower()
    if kind is NoSpace:
        why += ': the store is full ("vlmc df"); remove volumes, or give it more space'
    return kind(f"{what}: {why}", number=number)


def from_reply(
    result: int, answer: Mapping[str, Any], what: str = "the request failed"
) -> ArchipelagoError:
    """Make the exception that a control reply speaks of.

    Args:
        result: negative result of the reply.
        answer: its JSON object; may be empty.
        what: what was being done, for a reply without a message.
    """
    message = answer.get("message")
    if not isinstance(message, str) or not message:
        return from_errno(result, what)
    msgid = answer.get("msgid")
    kind = _BY_MSGID.get(msgid) if isinstance(msgid, str) else None
    if kind is None:
        kind = _BY_NUMBER.get(-result, IoError)
    return kind(message, number=-result)


def to_reply(error: ArchipelagoError) -> tuple[int, dict[str, str]]:
    """Turn an exception into result and JSON object of a control reply."""
    return -error.number, {"msgid": error.msgid, "message": error.message}
