# SPDX-License-Identifier: Apache-2.0
"""Which ways of handing out volumes this machine has.

Nothing is changed by looking: no module is loaded, no device is made.
"""

from __future__ import annotations

import enum
import errno
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kernel.fusemount import FUSERMOUNT

__all__ = ["Feature", "State", "probe"]


class State(enum.Enum):
    """What can be said of one feature."""

    READY = "ready"
    """It can be used now."""
    LOADABLE = "loadable"
    """The kernel has a module for it that is not loaded."""
    REFUSED = "refused"
    """It is there, and this user may not use it."""
    MISSING = "missing"
    """This kernel or machine does not have it."""


@dataclass(frozen=True)
class Feature:
    """One thing that a way of handing out volumes needs.

    Attributes:
        name: "fuse", "loop", "ublk", "nbd" or "io_uring".
        purpose: what it is for.
        state: whether it can be used.
        found: what was looked at and seen.
        cure: what to type or change; empty if it is ready.
    """

    name: str
    purpose: str
    state: State
    found: str
    cure: str = ""

    def to_json(self) -> dict[str, str]:
        """The same, for scripts."""
        return {
            "name": self.name,
            "purpose": self.purpose,
            "state": self.state.value,
            "found": self.found,
            "cure": self.cure,
        }


def probe() -> list[Feature]:
    """Look at all features."""
    return [_fuse(), _loop(), _ublk(), _nbd(), _io_uring()]


def _fuse() -> Feature:
    name, purpose = "fuse", "volumes as files (vlmc mount); vlmc map by loop"
    feature = _device(name, purpose, "/dev/fuse", "fuse")
    if feature.state is State.REFUSED or os.geteuid() == 0:
        return feature
    if feature.state is State.READY and shutil.which(FUSERMOUNT) is None:
        return Feature(
            name,
            purpose,
            State.REFUSED,
            f"/dev/fuse is there, {FUSERMOUNT} is not installed",
            "apt install fuse3",
        )
    return feature


def _loop() -> Feature:
    purpose = "vlmc map on a machine without ublk"
    return _device("loop", purpose, "/dev/loop-control", "loop")


def _ublk() -> Feature:
    purpose = "block devices served without FUSE (not used yet)"
    return _device("ublk", purpose, "/dev/ublk-control", "ublk_drv")


def _nbd() -> Feature:
    purpose = "nbd-client(8) on this machine"
    return _device("nbd", purpose, "/dev/nbd0", "nbd")


def _device(name: str, purpose: str, path: str, module: str) -> Feature:
    """A feature that shows itself as a device node."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return Feature(
                name,
                purpose,
                State.REFUSED,
                f"{path}: {os.strerror(error.errno)}",
                "run the command as root, or change the mode of the device",
            )
        if _has_module(module):
            return Feature(
                name,
                purpose,
                State.LOADABLE,
                f"no {path}; the module {module} is not loaded",
                f"modprobe {module}",
            )
        return Feature(
            name,
            purpose,
            State.MISSING,
            f"no {path}, and no module {module} for Linux {platform.release()}",
            f"boot a kernel that has {module}",
        )
    return Feature(name, purpose, State.READY, path)


def _has_module(module: str) -> bool:
    modprobe = shutil.which("modprobe", path=f"{os.environ.get('PATH', '')}:/sbin")
    if modprobe is None:
        return False
    done = subprocess.run(
        [modprobe, "--dry-run", "--quiet", module],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _io_uring() -> Feature:
    name, purpose = "io_uring", "the faster engine of the file backend"
    try:
        word = Path("/proc/sys/kernel/io_uring_disabled").read_text().strip()
    except FileNotFoundError:
        word = "0"  # Linux before 6.6 has no such setting
    if word == "0" or (word == "1" and os.geteuid() == 0):
        return Feature(name, purpose, State.READY, f"Linux {platform.release()}")
    return Feature(
        name,
        purpose,
        State.REFUSED,
        f"kernel.io_uring_disabled = {word}",
        "sysctl kernel.io_uring_disabled=0; without it the threads engine is used",
    )
