# SPDX-License-Identifier: Apache-2.0
"""The pid file: one holder, however it is raced for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from archipelago.errors import NoSpace
from archipelago.supervisor.lock import AlreadyRunning, PidLock, holder


def test_only_one_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert holder(path) is None
    lock = PidLock.acquire(path)
    assert holder(path) == 0
    lock.write_pid()
    assert holder(path) == os.getpid()
    with pytest.raises(
        AlreadyRunning, match=f"already running.*{os.getpid()}"
    ) as error:
        PidLock.acquire(path)
    assert error.value.exit_code == 5
    lock.release()
    lock.release()
    assert not path.exists()
    assert holder(path) is None


def test_a_file_that_nobody_locks_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")
    assert holder(path) is None
    lock = PidLock.acquire(path)
    lock.write_pid()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_the_lock_lives_as_long_as_its_last_copy(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    lock = PidLock.acquire(path)
    copy = PidLock(path, os.dup(lock.fd))
    lock.close()
    assert holder(path) == 0
    copy.close()
    assert holder(path) is None


def test_a_file_removed_while_waiting_is_not_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    old = PidLock.acquire(path)
    path.unlink()
    new = PidLock.acquire(path)
    assert path.stat().st_ino == os.fstat(new.fd).st_ino
    new.release()
    old.close()


def test_garbage_in_the_file_is_no_pid(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("not a number at all, and long enough to be cut off somewhere")
    lock = PidLock.acquire(path)
    assert holder(path) == 0
    lock.release()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "")

    lock = PidLock.acquire(tmp_path / "pid")
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(NoSpace, match=r"pid: no space left"):
        lock.write_pid()
    lock.release()
