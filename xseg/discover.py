# SPDX-License-Identifier: Apache-2.0
"""Find the segments of this machine."""

from __future__ import annotations

import os
from pathlib import Path

from xseg.constants import MAGIC

__all__ = ["segments"]

_MAGIC_BYTES = MAGIC.to_bytes(8, "little")


def segments(directory: str | os.PathLike[str] = "/dev/shm") -> list[str]:
    """Names of the segments that this user may read, sorted.

    Args:
        directory: Where POSIX shared memory lives.

    Source: shm_overview(7) for the place; layout.h for the first eight bytes.
    """
    found = []
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return []
    for entry in entries:
        try:
            if not entry.is_file(follow_symlinks=False):
                continue
            with Path(entry.path).open("rb", buffering=0) as file:
                if file.read(8) == _MAGIC_BYTES:
                    found.append(entry.name)
        except OSError:
            continue  # gone meanwhile, or another user's
    return sorted(found)
