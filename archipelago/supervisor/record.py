# SPDX-License-Identifier: Apache-2.0
"""Which processes a supervisor has started: its own record, in its run directory.

The next supervisor ends what the last one left behind.  It believes this file, which
only the instance's user can write, and never what a segment says of its ports.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from pathlib import Path

from xseg import Life, ProcessId, process_id, process_life

__all__ = ["Record"]

log = logging.getLogger(__name__)


class Record:
    """The processes that supervisors of one instance have started.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._processes = self._read()

    def note(self, pid: int) -> None:
        """Add a process that was just started; those that have ended are left out.

        An error is logged: a process that is not noted is not killed later.
        """
        kept = [p for p in self._processes if process_life(p) is not Life.DEAD]
        self._processes = [*kept, process_id(pid)]
        lines = [
            json.dumps([p.boot_id.hex(), p.pid_namespace, p.pid, p.start])
            for p in self._processes
        ]
        fresh = self._path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "w", encoding="ascii") as file:
                file.write("\n".join(lines) + "\n")
            fresh.replace(self._path)
        except OSError as error:
            log.warning("%s: %s", self._path, error)

    def forget(self) -> None:
        """Remove the record: all that was started has ended."""
        self._processes = []
        # A file system that has gone read-only keeps the file: no process in it lives.
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def knows(self, pid: int) -> bool:
        """True if the living process of that number was started by a supervisor."""
        return any(
            p.pid == pid and process_life(p) is Life.ALIVE for p in self._processes
        )

    def _read(self) -> list[ProcessId]:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return []
        with open(fd, encoding="ascii") as file:
            status = os.fstat(fd)
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & (
                stat.S_IWGRP | stat.S_IWOTH
            ):
                log.warning("%s is not believed: others may write it", self._path)
                return []
            try:
                return [_parse(line) for line in file]
            except (ValueError, TypeError) as error:
                log.warning("%s is damaged: %s", self._path, error)
                return []


def _parse(line: str) -> ProcessId:
    boot_id, namespace, pid, start = json.loads(line)
    return ProcessId(bytes.fromhex(boot_id), int(namespace), int(pid), int(start))
