# SPDX-License-Identifier: Apache-2.0
"""From errno to exception: the only place that knows both.

`check` is called on every return of libxseg by the other extensions, with the GIL.
"""

import errno as _errno
import os as _os

from libc.stdint cimport int64_t

from xseg import errors as _errors

cdef dict _TABLE = {
    _errno.EACCES: _errors.NotPermitted,
    _errno.EAGAIN: _errors.WouldBlock,
    _errno.EBADF: _errors.ClosedError,
    _errno.EBADMSG: _errors.DataCorrupt,
    _errno.EBUSY: _errors.BusyError,
    _errno.ECANCELED: _errors.Cancelled,
    _errno.EEXIST: _errors.AlreadyExists,
    _errno.EINVAL: _errors.InvalidArgument,
    _errno.ENAMETOOLONG: _errors.InvalidArgument,
    _errno.ENOBUFS: _errors.SegmentFull,
    _errno.ENOENT: _errors.NotFound,
    _errno.ENOSPC: _errors.NoSpace,
    _errno.EOPNOTSUPP: _errors.NotSupported,
    _errno.EOWNERDEAD: _errors.PeerDied,
    _errno.EPERM: _errors.NotPermitted,
    _errno.EPIPE: _errors.PortUnbound,
    _errno.EPROTONOSUPPORT: _errors.FormatMismatch,
    _errno.EROFS: _errors.ReadOnly,
    _errno.ESTALE: _errors.StaleVersion,
    _errno.ETIMEDOUT: _errors.TimedOut,
}

cdef dict _TEXT = {
    _errno.EAGAIN: "nothing there yet or the ring is full",
    _errno.EBADMSG: "stored bytes are damaged",
    _errno.EBUSY: "in use",
    _errno.ECANCELED: "the peer was stopped before it served",
    _errno.EEXIST: "the name is taken",
    _errno.ENOENT: "there is none of that name",
    _errno.ENOBUFS: "no request descriptor or buffer of that size is free",
    _errno.EOWNERDEAD: "the peer that held the request died",
    _errno.EPIPE: "no process is bound to the port",
    _errno.EPROTONOSUPPORT: "a format version that this build does not speak",
    _errno.EROFS: "read-only",
    _errno.ESTALE: "an older fence or version than the current one",
}


def error_from(result, what=""):
    """Make the exception for a negated errno, to be raised by the caller.

    Args:
        result: A request's result or a C return, below 0.
        what: What was tried and on which object; opens the message.

    Raises:
        ValueError: `result` is not negative.
    """
    number = -int(result)
    if number <= 0:
        raise ValueError(f"{result} is not a negated errno")
    text = _TEXT.get(number) or _os.strerror(number)
    if what:
        text = f"{what}: {text}"
    return _TABLE.get(number, _errors.XsegError)(number, text)


cdef int64_t check(int64_t rc, str what="") except -1:
    if rc < 0:
        raise error_from(rc, what)
    return rc


def raise_for(result, what=""):
    """Return a result of 0 or more; raise the exception of a negative one.

    Raises:
        XsegError: The subclass that `xseg.errors` draws for the errno.
    """
    return check(result, what)


def error_table():
    """Copy of the table from errno to exception; others become `XsegError`."""
    return dict(_TABLE)
