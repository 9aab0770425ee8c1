# SPDX-License-Identifier: Apache-2.0
"""What came of the calls in which a killed process was.

Its calls that had begun and not returned were done, or not, or in part. Only that
process writes to its files, so once it is known dead, and before its successor starts,
the files tell; that goes into the log."""

from __future__ import annotations

import os
from pathlib import Path

from tests.crash.journal import DATA, NAMES, Event, Kind, Recorder, read_part


def observe(recorder: Recorder, log: Path, store: Path, pid: int) -> int:
    """Look at the files that a dead process was changing.

    Args:
        recorder: takes what is found.
        log: of the recorder.
        store: the directory that is recorded.
        pid: of the process, all threads of which have ended.

    Returns:
        How many calls it was in.
    """
    open_calls: dict[int, Event] = {}
    for part in log.glob(f"{pid}.*.log"):
        for event in read_part(part):
            if event.kind in DATA or event.kind in NAMES:
                open_calls[event.id] = event
            elif event.kind is Kind.END:
                open_calls.pop(event.id, None)
    paths = _paths(store) if open_calls else {}
    for event in open_calls.values():
        if event.kind in NAMES:
            inode = _happened(store, event)
            recorder.observed(event.id, -1 if inode is None else 0, inode or 0)
        elif event.inode not in paths:
            recorder.observed(event.id, -1)
        else:
            _observe_data(recorder, paths[event.inode], event)
    return len(open_calls)


def _paths(store: Path) -> dict[int, Path]:
    return {
        os.stat(Path(base) / name).st_ino: Path(base) / name
        for base, _, names in os.walk(store)
        for name in names
    }


def _happened(store: Path, event: Event) -> int | None:
    """None if a change of names did not happen; the inode of a file that was made."""
    path = store / event.path
    if event.kind is Kind.CREATE:
        return path.stat().st_ino if path.exists() else None
    if event.kind is Kind.MKDIR:
        return 0 if path.exists() else None
    if event.kind is Kind.LINK:
        return 0 if (store / event.path2).exists() else None
    return None if path.exists() else 0


def _observe_data(recorder: Recorder, path: Path, event: Event) -> None:
    if event.kind is Kind.TRUNCATE:
        recorder.observed(event.id, path.stat().st_size)
        return
    with path.open("rb") as file:
        file.seek(event.offset)
        recorder.observed(event.id, 0, 0, file.read(event.length))
