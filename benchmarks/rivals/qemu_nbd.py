# SPDX-License-Identifier: Apache-2.0
"""qemu-nbd: a raw file, a qcow2 file, or a fresh qcow2 overlay over a golden one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.target import Target, serving


@contextlib.contextmanager
def image(
    work: Path, fmt: str, size: int, backing: Path | None = None
) -> Iterator[Target]:
    """Serve a new image of `size` bytes in the given format."""
    path = work / f"qemu-{'overlay' if backing else fmt}.img"
    path.unlink(missing_ok=True)
    base = ["-b", str(backing), "-F", "qcow2"] if backing else []
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", fmt, *base, str(path), str(size)], check=True
    )
    socket = work / "qemu.sock"
    name = f"qemu-nbd {fmt}" + (" overlay" if backing else "")
    argv = [
        "qemu-nbd",
        "-f",
        fmt,
        "-k",
        str(socket),
        "-t",
        "-e",
        "8",
        "-x",
        "",
        str(path),
    ]
    with serving(name, argv, socket) as target:
        yield target
    path.unlink()
