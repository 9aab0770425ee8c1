# SPDX-License-Identifier: Apache-2.0
"""The log of the recorder: building the recorder, reading what it wrote."""

from __future__ import annotations

import os
import shlex
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_RECORD = struct.Struct("<IIIIQQqQ")
_SOURCE = Path(__file__).with_name("record.c")


class Kind(IntEnum):
    """What a record says; as in record.c."""

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


@dataclass(slots=True)
class Event:
    """One record.

    Attributes:
        kind: what was begun, or END.
        id: of the call; an END has that of its beginning.
        inode: of the file.
        offset: [bytes]; TRUNCATE: the new size; END: result, or a negated errno.
        length: [bytes]; END of a CREATE: the new inode.
        path: relative to the store; MARK: its text.
        path2: RENAME and LINK: the new name.
        data: WRITE: the bytes.
    """

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
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared"]
    subprocess.run(
        [*compiler, *flags, "-o", str(library), str(_SOURCE), "-ldl"], check=True
    )
    return library


def read_log(path: Path) -> list[Event]:
    """Read all records of a log."""
    return list(_records(memoryview(path.read_bytes())))


def _records(raw: memoryview) -> Iterator[Event]:
    at = 0
    while at < len(raw):
        kind, path, path2, data, number, inode, offset, length = _RECORD.unpack_from(
            raw, at
        )
        at += _RECORD.size
        name = bytes(raw[at : at + path]).decode()
        at += path
        name2 = bytes(raw[at : at + path2]).decode()
        at += path2
        body = bytes(raw[at : at + data])
        at += data
        yield Event(Kind(kind), number, inode, offset, length, name, name2, body)
