# SPDX-License-Identifier: Apache-2.0
"""The log of the recorder: building the recorder, reading what it wrote."""

from __future__ import annotations

import ctypes
import os
import shlex
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_RECORD = struct.Struct("<QIIIIQQqQ")
_SOURCES = Path(__file__).with_name("recorder")


class Kind(IntEnum):
    """What a record says; as in recorder/log.h."""

    END = 0
    MARK = 1
    CREATE = 2
    WRITE = 3
    PUNCH = 4
    TRUNCATE = 5
    SYNC = 6
    SYNCFS = 7
    RENAME = 8
    LINK = 9
    UNLINK = 10
    MKDIR = 11
    RMDIR = 12
    SYNCDIR = 13
    WRITE_DSYNC = 14
    OBSERVED = 15


#: Calls that change bytes or the size of a file, and calls that change names.
DATA = frozenset({Kind.WRITE, Kind.PUNCH, Kind.TRUNCATE, Kind.WRITE_DSYNC})
SYNCS = frozenset({Kind.SYNC, Kind.SYNCFS, Kind.SYNCDIR})
NAMES = frozenset(
    {Kind.CREATE, Kind.RENAME, Kind.LINK, Kind.UNLINK, Kind.MKDIR, Kind.RMDIR}
)


@dataclass(slots=True)
class Event:
    """One record.

    Attributes:
        number: its place in the order of all processes.
        kind: what was begun, or END, or OBSERVED.
        id: of the call; an END has that of its beginning.
        inode: of the file.
        offset: [bytes]; TRUNCATE: the new size; END: result, or a negated errno.
        length: [bytes]; END of a CREATE: the new inode.
        path: relative to the store; MARK: its text.
        path2: RENAME and LINK: the new name.
        data: WRITE: the bytes; MARK: what was read; OBSERVED: what the range holds.
    """

    number: int
    kind: Kind
    id: int
    inode: int
    offset: int
    length: int
    path: str
    path2: str
    data: bytes


def build_recorder(into: Path) -> Path:
    """Compile the recorder.

    Args:
        into: a directory.

    Returns:
        The library for LD_PRELOAD.
    """
    library = into / "record.so"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-Wall"]
    flags += ["-fvisibility=hidden", "-Werror"]
    sources = [str(source) for source in sorted(_SOURCES.glob("*.c"))]
    subprocess.run(
        [*compiler, *flags, "-o", str(library), *sources, "-ldl", "-lpthread"],
        check=True,
    )
    return library


def environment(recorder: Path, store: Path, log: Path) -> dict[str, str]:
    """What a process to be recorded has in its environment."""
    log.mkdir(exist_ok=True)
    return {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "CRASH_ROOT": str(store),
        "CRASH_LOG": str(log),
    }


class Recorder:
    """The recorder of this process, from within."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)

    def mark(self, text: str, data: bytes = b"") -> None:
        """Put a remark into the log."""
        self._library.crash_mark(text.encode(), data, ctypes.c_size_t(len(data)))

    def observed(
        self, call: int, result: int, inode: int = 0, data: bytes = b""
    ) -> None:
        """Say what came of a call that a dead process had begun."""
        self._library.crash_observed(
            ctypes.c_uint64(call),
            ctypes.c_int64(result),
            ctypes.c_uint64(inode),
            data,
            ctypes.c_size_t(len(data)),
        )

    def kill_in(self, records: int, kinds: frozenset[Kind]) -> None:
        """Let a peer process die at its n-th record of these kinds; 0: none."""
        bits = sum(1 << kind for kind in kinds)
        self._library.crash_kill_in(ctypes.c_int64(records), ctypes.c_uint64(bits))


def read_log(log: Path) -> list[Event]:
    """Read all records of a log, of all its processes, in their order."""
    events = [event for path in log.glob("*.log") for event in read_part(path)]
    return sorted(events, key=lambda event: event.number)


def read_part(path: Path) -> Iterator[Event]:
    """Read what one process wrote; a last record that is cut short does not count."""
    raw = memoryview(path.read_bytes())
    at = 0
    while at + _RECORD.size <= len(raw):
        (
            number,
            kind,
            path_bytes,
            path2_bytes,
            data_bytes,
            call,
            inode,
            offset,
            length,
        ) = _RECORD.unpack_from(raw, at)
        at += _RECORD.size
        if at + path_bytes + path2_bytes + data_bytes > len(raw):
            return
        name = bytes(raw[at : at + path_bytes]).decode()
        at += path_bytes
        name2 = bytes(raw[at : at + path2_bytes]).decode()
        at += path2_bytes
        data = bytes(raw[at : at + data_bytes])
        at += data_bytes
        yield Event(number, Kind(kind), call, inode, offset, length, name, name2, data)
