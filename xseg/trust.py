# SPDX-License-Identifier: Apache-2.0
"""Why a segment is not trusted, in words.

The library decides (``src/xseg/segfile.h``); this looks once more, for people.
"""

from __future__ import annotations

import os
import stat

__all__ = ["SHM_DIR", "distrust", "segment_owner"]

#: Where segments have their names.
SHM_DIR = "/dev/shm"


def segment_owner(name: str) -> int:
    """Number of the user that owns a segment's file; this user's if there is none."""
    try:
        return os.lstat(f"{SHM_DIR}/{name}").st_uid
    except OSError:
        return os.geteuid()


def distrust(name: str) -> str:
    """Say what is wrong with the file of a segment, and how to mend it."""
    path = f"{SHM_DIR}/{name}"
    try:
        file = os.lstat(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISREG(file.st_mode):
        why = "is no regular file"
    elif file.st_nlink != 1:
        why = f"has {file.st_nlink} names (hard links)"
    elif file.st_mode & stat.S_IWOTH:
        why = "may be written by every user"
    elif file.st_uid not in (0, os.geteuid()):
        why = f"belongs to user {file.st_uid}"
    else:
        return f"{SHM_DIR} has no sticky bit, so every user may replace what is in it"
    return f"{path} {why}; if it is not meant to be there, remove it"
