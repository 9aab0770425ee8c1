# SPDX-License-Identifier: Apache-2.0
"""Small filesystems to fill: ext4 and XFS on a loop device, and tmpfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 1 << 20
#: XFS has a least size of 300 MiB.
_SIZES = {"ext4": 96 * MIB, "xfs": 320 * MIB, "tmpfs": 96 * MIB}
_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-m", "0", "-F"],
    "xfs": ["mkfs.xfs", "-q"],
}
_CHECK = {"ext4": ["e2fsck", "-f", "-n"], "xfs": ["xfs_repair", "-n"]}


@dataclass(frozen=True)
class Disk:
    """A mounted filesystem.

    Attributes:
        path: where.
    """

    path: Path

    @property
    def free_bytes(self) -> int:
        """What can still be stored [bytes]."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def leave(self, size: int) -> None:
        """Take all space but `size` [bytes]."""
        with (self.path / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free_bytes - size)

    def take_the_rest(self) -> None:
        """Take what is left, to the last block."""
        with contextlib.suppress(OSError), (self.path / "rest").open("wb") as file:
            while True:
                os.write(file.fileno(), bytes(4096))

    def give_back(self, name: str) -> None:
        """Remove "filler" or "rest"."""
        (self.path / name).unlink(missing_ok=True)


def why_not(kind: str) -> str:
    """Why such a disk cannot be had here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root, to mount"
    tools = [argv[0] for argv in (_MAKE.get(kind), _CHECK.get(kind)) if argv]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    known = Path("/proc/filesystems").read_text().split()
    return "" if kind in known else f"needs a kernel with {kind}"


@contextlib.contextmanager
def small_disk(kind: str) -> Iterator[Disk]:
    """Mount one; at the end it must be sound.

    Raises:
        PermissionError: mounting is not allowed here.
    """
    shm = Path("/dev/shm")
    base = shm if os.access(shm, os.W_OK) else None
    scratch = Path(tempfile.mkdtemp(prefix="archipelago-disk-", dir=base))
    image, where = scratch / "image", scratch / "mnt"
    where.mkdir()
    try:
        if kind == "tmpfs":
            source = ["-t", "tmpfs", "-o", f"size={_SIZES[kind]}", "none"]
        else:
            with image.open("wb") as file:
                file.truncate(_SIZES[kind])
            subprocess.run([*_MAKE[kind], str(image)], check=True)
            source = ["-t", kind, "-o", "loop", str(image)]
        mounted = subprocess.run(
            ["mount", *source, str(where)], capture_output=True, text=True
        )
        if mounted.returncode:
            raise PermissionError(mounted.stderr.strip())
        try:
            yield Disk(where)
        finally:
            subprocess.run(["umount", str(where)], check=True)
        if kind in _CHECK:
            done = subprocess.run(
                [*_CHECK[kind], str(image)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        shutil.rmtree(scratch)


@contextlib.contextmanager
def disk_or_skip(kind: str) -> Iterator[Disk]:
    """As `small_disk`; skips the test where there can be none."""
    if reason := why_not(kind):
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(kind))
        except PermissionError as error:
            pytest.skip(f"cannot mount: {error}")
        yield disk
