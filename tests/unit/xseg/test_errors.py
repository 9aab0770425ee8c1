# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import inspect
import pickle

import pytest

from xseg import _errors, errors
from xseg.errors import XsegError

EXPECTED = {
    "EACCES": errors.NotPermitted,
    "EAGAIN": errors.WouldBlock,
    "EBADF": errors.ClosedError,
    "EBADMSG": errors.DataCorrupt,
    "EBUSY": errors.BusyError,
    "ECANCELED": errors.Cancelled,
    "EEXIST": errors.AlreadyExists,
    "EINVAL": errors.InvalidArgument,
    "ENAMETOOLONG": errors.InvalidArgument,
    "ENOBUFS": errors.SegmentFull,
    "ENOENT": errors.NotFound,
    "ENOSPC": errors.NoSpace,
    "EOPNOTSUPP": errors.NotSupported,
    "EOWNERDEAD": errors.PeerDied,
    "EPERM": errors.NotPermitted,
    "EPIPE": errors.PortUnbound,
    "EPROTONOSUPPORT": errors.FormatMismatch,
    "EROFS": errors.ReadOnly,
    "ESTALE": errors.StaleVersion,
    "ETIMEDOUT": errors.TimedOut,
}


@pytest.mark.parametrize(("name", "kind"), EXPECTED.items())
def test_each_errno_has_its_exception(name: str, kind: type[XsegError]) -> None:
    number = getattr(errno, name)
    error = _errors.error_from(-number, "read v")
    assert type(error) is kind
    assert error.errno == number
    assert str(error).startswith(f"[Errno {number}] read v: ")


def test_the_table_has_nothing_else() -> None:
    assert _errors.error_table() == {
        getattr(errno, name): kind for name, kind in EXPECTED.items()
    }


def test_an_errno_outside_the_table_is_the_root() -> None:
    error = _errors.error_from(-errno.EIO)
    assert type(error) is XsegError
    assert error.errno == errno.EIO


def test_a_result_that_is_no_error_makes_no_exception() -> None:
    with pytest.raises(ValueError):
        _errors.error_from(0)
    assert _errors.raise_for(4096, "read") == 4096
    with pytest.raises(errors.DataCorrupt, match="read block 3"):
        _errors.raise_for(-errno.EBADMSG, "read block 3")


def test_errors_are_also_the_builtins_people_catch() -> None:
    for number, builtin in (
        (errno.EAGAIN, BlockingIOError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EPIPE, BrokenPipeError),
        (errno.ENOENT, FileNotFoundError),
        (errno.EEXIST, FileExistsError),
        (errno.EINVAL, ValueError),
    ):
        assert isinstance(_errors.error_from(-number), builtin)


def test_every_class_is_exported_and_has_a_message_id_of_its_own() -> None:
    classes = [
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, XsegError)
    ]
    assert {c.__name__ for c in classes} == set(errors.__all__)
    assert len({c.msgid for c in classes}) == len(classes)
    assert all(c.exit_code in range(1, 10) for c in classes)


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(_errors.error_from(-errno.EBUSY, "bind")))
    assert type(error) is errors.BusyError
    assert (error.errno, error.strerror) == (errno.EBUSY, "bind: in use")
