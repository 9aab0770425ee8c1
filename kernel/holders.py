# SPDX-License-Identifier: Apache-2.0
"""What keeps a block device busy: mounts, devices stacked on it, processes.

Source: proc(5) for mountinfo, Linux `Documentation/ABI/stable/sysfs-block`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["device_holders"]


def device_holders(device: str) -> list[str]:
    """Say in words what uses a device or one of its partitions.

    Args:
        device: "/dev/loop3".

    Returns:
        One phrase for each use, such as "mounted on /mnt"; empty if none was found.
    """
    name = os.path.basename(device)
    block = Path("/sys/class/block")
    parts = [name, *(p.name for p in (block / name).glob(f"{name}p*"))]
    numbers = {}
    for part in parts:
        try:
            numbers[(block / part / "dev").read_text().strip()] = part
        except OSError:
            continue
    found = [f"mounted on {where}" for where in _mounts(set(numbers))]
    for part in parts:
        holders = block / part / "holders"
        if holders.is_dir():
            found += [f"used by /dev/{entry.name}" for entry in holders.iterdir()]
    return found + _processes({f"/dev/{part}" for part in parts})


def _mounts(numbers: set[str]) -> list[str]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[2] in numbers:
            found.append(re.sub(r"\\(\d{3})", _octal, fields[4]))
    return found


def _octal(match: re.Match[str]) -> str:
    return chr(int(match.group(1), 8))


def _processes(devices: set[str]) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = {os.readlink(fd) for fd in (process / "fd").iterdir()}
            if links & devices:
                command = (process / "comm").read_text().strip()
                found.append(f"open in {command} (pid {process.name})")
        except OSError:
            continue  # it ended, or may not be looked at
    return found
