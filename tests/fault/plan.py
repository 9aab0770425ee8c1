# SPDX-License-Identifier: Apache-2.0
"""What is to fail: the Python side of inject.c."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tests.helpers.preload import build
from xseg.closing import Closing

_SOURCE = Path(__file__).with_name("inject.c")
#: kinds, error, first, last, only_full, -, only, nr, struck, seen per kind
_PLAN = struct.Struct("<IiQQII64s")
_COUNTS = struct.Struct("<QQ11Q")
_FOREVER = (1 << 64) - 1


class Kind(IntEnum):
    """What kind of call; as in inject.c."""

    READ = 0
    WRITE = 1
    SYNC = 2
    PUNCH = 3
    TRUNCATE = 4
    OPEN = 5
    CREATE = 6
    MKDIR = 7
    RENAME = 8
    LINK = 9
    UNLINK = 10


@dataclass(frozen=True)
class Counts:
    """What was counted since the file was made.

    Attributes:
        nr: calls that the plan speaks of, since it was made.
        struck: of them, those that failed.
        seen: all calls, by kind.
    """

    nr: int
    struck: int
    seen: dict[Kind, int]


class Plan(Closing):
    """The control file of the library; closed by ``with``.

    Args:
        path: of the file; made here.
    """

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(4096)
            self._map = mmap.mmap(file.fileno(), 4096)

    def close(self) -> None:
        """Let the file go; what is in force stays so."""
        self._map.close()

    def fail(
        self,
        kinds: tuple[Kind, ...],
        error: int,
        first: int,
        nr: int | None = 1,
        *,
        only: str = "",
        only_full: bool = False,
    ) -> None:
        """Let calls fail from now on.

        Args:
            kinds: which; counted together.
            error: errno; 0 makes transfers short.
            first: the first that fails, counted from 1.
            nr: how many fail; None: all until `clear`.
            only: only those on paths below the root that contain this.
            only_full: only writes that need space.
        """
        self.clear()
        bits = sum(1 << kind for kind in kinds)
        last = _FOREVER if nr is None else first + nr - 1
        # The kinds last: they make the plan count.
        _PLAN.pack_into(
            self._map, 0, 0, error, first, last, only_full, 0, only.encode()
        )
        struct.pack_into("<I", self._map, 0, bits)

    def clear(self) -> None:
        """Let nothing fail any more, and count anew."""
        struct.pack_into("<I", self._map, 0, 0)
        struct.pack_into("<QQ", self._map, _PLAN.size, 0, 0)

    def counts(self) -> Counts:
        """What was counted."""
        nr, struck, *seen = _COUNTS.unpack_from(self._map, _PLAN.size)
        return Counts(nr, struck, dict(zip(Kind, seen, strict=True)))


def build_injector(into: Path) -> Path:
    """Compile the library.

    Args:
        into: a directory.

    Returns:
        The library for LD_PRELOAD.
    """
    library = into / "inject.so"
    flags = []
    if Path("/usr/include/liburing.h").exists():
        flags.append("-DFAULT_URING")
    build(library, [_SOURCE], *flags)
    return library


def injected(library: Path, root: Path, control: Path) -> dict[str, str]:
    """The environment of a process whose calls below `root` are to fail."""
    return {
        "LD_PRELOAD": str(library),
        "FAULT_ROOT": str(root),
        "FAULT_CONTROL": str(control),
    }
