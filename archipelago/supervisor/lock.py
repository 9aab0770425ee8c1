# SPDX-License-Identifier: Apache-2.0
"""The pid file: a locked file that only one supervisor of an instance can hold.

The lock (flock) belongs to the open file, so it is handed from the command to the
daemon with the descriptor, and a dead supervisor's lock is gone with it.  The pid
inside is for people; whether one runs is decided by the lock alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from archipelago.errors import VolumeBusy, from_errno


class AlreadyRunning(VolumeBusy):
    """Another supervisor holds the instance."""

    msgid = "already-running"

    @classmethod
    def of(cls, pid: int) -> AlreadyRunning:
        """Name the supervisor that holds it; 0 if it has not said its pid yet."""
        return cls(
            f"already running (pid {pid or 'not known yet'}); "
            "'archipelago restart' restarts it"
        )


class PidLock:
    """The right to be the supervisor.  Close it, or die, to give it up.

    Args:
        path: the pid file.
        fd: descriptor that holds the lock.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def acquire(cls, path: Path) -> PidLock:
        """Take the lock, creating the file.

        Raises:
            AlreadyRunning: a supervisor holds it; the message has its pid.
            OSError: the file cannot be made.
        """
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = _read_pid(fd)
                os.close(fd)
                raise AlreadyRunning.of(pid) from None
            if _is_at(fd, path):
                return cls(path, fd)
            os.close(fd)  # a supervisor that ended removed this very file

    def write_pid(self) -> None:
        """Record this process as the holder.

        Raises:
            ArchipelagoError: it cannot be written: the disk is full, for one.
        """
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            number = error.errno or errno.EIO
            raise from_errno(number, f"cannot write {self.path}") from error

    def release(self) -> None:
        """Remove the file and give up the lock; harmless when repeated.

        On a file system that has gone read-only the file stays.  Nothing is wrong with
        that: the lock decides, not the file.
        """
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                if _is_at(self.fd, self.path):
                    self.path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Close this process's descriptor; the lock stays with the others' copies."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def holder(path: Path) -> int | None:
    """Pid of the running supervisor, 0 if it has not yet written it, or None."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # A shared lock: two commands that look at once do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(fd)
    finally:
        os.close(fd)
    return None


def _read_pid(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _is_at(fd: int, path: Path) -> bool:
    mine = os.fstat(fd)
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
