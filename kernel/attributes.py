# SPDX-License-Identifier: Apache-2.0
"""Attributes of a file as its server has them, past the kernel's cache.

Source: statx(2), AT_STATX_FORCE_SYNC.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["renew_attributes"]

_AT_FDCWD = -100
_AT_STATX_FORCE_SYNC = 0x2000
_STATX_SIZE = 0x200
#: struct statx [bytes].
_STATX_BYTES = 256


def renew_attributes(path: Path) -> None:
    """Let the kernel ask the filesystem anew what a file's attributes are.

    Raises:
        OSError: there is no such file, or its filesystem does not answer.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    into = ctypes.create_string_buffer(_STATX_BYTES)
    name = os.fsencode(path)
    if libc.statx(_AT_FDCWD, name, _AT_STATX_FORCE_SYNC, _STATX_SIZE, into):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(path))
