# SPDX-License-Identifier: Apache-2.0
"""A directory to write to and throw away."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A directory in memory if there is one: for syncs that are watched, not needed.

    Args:
        name: part of the directory's name.
    """
    shm = Path("/dev/shm")
    base = shm if os.access(shm, os.W_OK) else None
    where = Path(tempfile.mkdtemp(prefix=f"archipelago-{name}-", dir=base))
    try:
        yield where
    finally:
        shutil.rmtree(where)
