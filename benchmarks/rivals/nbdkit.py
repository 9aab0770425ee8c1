# SPDX-License-Identifier: Apache-2.0
"""nbdkit with its file plugin over a raw sparse file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.target import Target, serving


@contextlib.contextmanager
def raw(work: Path, size: int) -> Iterator[Target]:
    """Serve a new raw file of `size` bytes."""
    path = work / "nbdkit.img"
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
    socket = work / "nbdkit.sock"
    with serving(
        "nbdkit file", ["nbdkit", "-f", "-U", str(socket), "file", str(path)], socket
    ) as t:
        yield t
    path.unlink()
