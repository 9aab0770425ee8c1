# SPDX-License-Identifier: Apache-2.0
"""Errors: stable numbers, and the same on both sides of a control request."""

from __future__ import annotations

import errno
import pickle

import pytest

from archipelago import errors
from archipelago.errors import ArchipelagoError, from_errno, from_reply, to_reply


def every_class() -> list[type[ArchipelagoError]]:
    """All of `archipelago.errors`; other modules may add kinds that stay local."""
    found = [ArchipelagoError]
    for kind in found:
        found += [k for k in kind.__subclasses__() if k.__module__ == errors.__name__]
    return found


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_an_error_crosses_a_control_request_unchanged(
    kind: type[ArchipelagoError],
) -> None:
    error = kind('"v" is what it is: do that')
    result, answer = to_reply(error)
    assert result < 0
    again = from_reply(result, answer)
    assert type(again) is kind
    assert str(again) == str(error) == '"v" is what it is: do that'
    assert again.number == error.number == error.errno
    copy = pickle.loads(pickle.dumps(again))
    assert (type(copy), str(copy), copy.number) == (kind, str(error), error.number)


def test_names_are_unique_and_exit_codes_documented() -> None:
    kinds = every_class()
    assert len({kind.msgid for kind in kinds}) == len(kinds)
    assert {kind.exit_code for kind in kinds} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
    assert all(kind.__name__ in errors.__all__ for kind in kinds)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, FileNotFoundError),
        (errno.EEXIST, FileExistsError),
        (errno.EBUSY, errors.VolumeBusy),
        (errno.EROFS, errors.ReadOnlySnapshot),
        (errno.ENOSPC, errors.NoSpace),
        (errno.EPIPE, ConnectionError),
        (errno.EBADMSG, errors.MapCorrupt),
        (errno.EINVAL, ValueError),
        (errno.EIO, OSError),
        (12345, errors.IoError),
    ],
)
def test_an_errno_alone_has_its_class(number: int, kind: type[Exception]) -> None:
    error = from_errno(-number, "cannot do it")
    assert isinstance(error, kind)
    assert str(error).startswith("cannot do it: ")
    assert error.number == number
    assert type(from_reply(-number, {}, "cannot do it")) is type(error)


@pytest.mark.parametrize("answer", [{"message": 5}, {"msgid": []}, {"message": ""}])
def test_an_answer_that_makes_no_sense_is_an_error_all_the_same(
    answer: dict[str, object],
) -> None:
    assert isinstance(from_reply(-errno.ENOENT, answer), errors.VolumeNotFound)
    assert isinstance(
        from_reply(-errno.EBUSY, {"message": "m", "msgid": "new"}), errors.VolumeBusy
    )
