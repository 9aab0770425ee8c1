# SPDX-License-Identifier: Apache-2.0
"""Volumes as block devices of this machine.

The file of a volume in the instance's own FUSE mount gets a loop device, and that
gets a name ``/dev/xsegbdN``.  What is mapped is read from the kernel, so no record of
ours can be wrong: a device is ours if its backing file lies in the mount.

All functions need root.  One command works at a time; its lock ends with its process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archipelago.errors import (
    ArchipelagoError,
    LeaseHeld,
    UsageError,
    VolumeBusy,
    VolumeNotFound,
)
from archipelago.paths import locate
from archipelago.supervisor.client import ask
from kernel import loop
from kernel.attributes import renew_attributes
from kernel.holders import device_holders

__all__ = [
    "Mapping",
    "instance_mount",
    "map_volume",
    "mappings",
    "release_all",
    "unmap_volume",
]

log = logging.getLogger(__name__)

#: How long a device may be looked at by udev, and the time between two looks [s].
_LOOK_SECONDS = 0.5
_LOOK_PAUSE = 0.02
#: Names of devices: this and a number from 1 on.
_LINK = "/dev/xsegbd"


@dataclass(frozen=True)
class Mapping:
    """One mapped volume.

    Attributes:
        id: N of the device's name; 0 if it has no name.
        volume: its name when it was mapped.
        device: ``/dev/xsegbdN``, or the kernel's name if it has no other.
        kernel_device: the kernel's own name.
        driver: how it is served.
        read_only: writes are refused.
    """

    id: int
    volume: str
    device: str
    kernel_device: str
    driver: str
    read_only: bool

    def to_json(self) -> dict[str, object]:
        """The documented members."""
        return {
            "id": self.id,
            "volume": self.volume,
            "device": self.device,
            "kernel_device": self.kernel_device,
            "driver": self.driver,
            "read_only": self.read_only,
        }


def instance_mount(home: str | os.PathLike[str] | None = None) -> Path:
    """The instance's own mount of its volumes, made if need be.

    Args:
        home: as for `archipelago.paths.locate`.

    Raises:
        NotRunning: the instance does not run.
        ArchipelagoError: it cannot be mounted.
    """
    return Path(ask(locate(home), "mount")["path"])


def mappings(folder: Path) -> list[Mapping]:
    """List what is mapped.

    Args:
        folder: the instance's own mount.
    """
    links = _links()
    here = _device_of(folder)
    return [
        _mapping(device, links)
        for device in loop.attached(folder)
        if device.backing_dev == here
    ]


def map_volume(folder: Path, name: str, *, read_only: bool) -> Mapping:
    """Map a volume, or find it mapped.

    Args:
        folder: the instance's own mount, mounted.
        name: of a volume; of a snapshot if `read_only`.
        read_only: the device refuses writes, and other nodes may write to the volume.

    Raises:
        VolumeBusy: it is mapped in the other mode.
        LeaseHeld: another instance has it open.
        ArchipelagoError: no device can be had.
    """
    with _locked(folder):
        _clear_stale(folder)
        for mapping in mappings(folder):
            if mapping.volume == name:
                return _as_it_is(folder, mapping, read_only)
        try:
            device = loop.attach(folder / name, read_only=read_only)
        except OSError as error:
            raise _refusal(name, error) from error
        try:
            _make_link(device.path)
        except OSError as error:
            loop.detach(device.path)
            raise ArchipelagoError(
                f"cannot name the device of {name}: {error.strerror}"
            ) from error
        return _mapping(device, _links())


def unmap_volume(folder: Path, target: str) -> Mapping:
    """Unmap a volume; what was written is flushed.

    Args:
        folder: the instance's own mount.
        target: its device, by either name, or the name of the volume.

    Raises:
        UsageError: it is not mapped.
        VolumeBusy: the device is mounted or open.
    """
    with _locked(folder):
        _clear_stale(folder)
        for mapping in mappings(folder):
            if target in (mapping.device, mapping.kernel_device, mapping.volume):
                break
        else:
            raise UsageError(f'{target} is not mapped: "vlmc showmapped" shows what is')
        # The kernel refuses only what is mounted or stacked: a device that is just open
        # would go on without its name until it is closed.
        _refuse_held(mapping, _holders(mapping.kernel_device))
        try:
            loop.detach(mapping.kernel_device)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise ArchipelagoError(
                    f"{mapping.device} is not unmapped: {error.strerror}"
                ) from error
            uses = device_holders(mapping.kernel_device) or ["in use"]
            _refuse_held(mapping, uses)
        _drop_links(mapping.kernel_device)
        return mapping


def _holders(kernel_device: str) -> list[str]:
    """What uses a device; the system's own look at a device that changed ends soon."""
    end = time.monotonic() + _LOOK_SECONDS
    while holders := device_holders(kernel_device):
        if time.monotonic() >= end:
            break
        time.sleep(_LOOK_PAUSE)
    return holders


def _refuse_held(mapping: Mapping, uses: list[str]) -> None:
    if uses:
        raise VolumeBusy(f"{mapping.device} ({mapping.volume}) is {', '.join(uses)}")


def release_all(folder: Path) -> None:
    """Let all devices go: those that are free are flushed, others fail from now on.

    Args:
        folder: the instance's own mount, which is unmounted next.
    """
    for mapping in mappings(folder):
        try:
            loop.detach(mapping.kernel_device)
        except OSError as error:
            log.error("%s is cut off: %s", mapping.device, error.strerror)
            with contextlib.suppress(OSError):
                loop.discard(mapping.kernel_device)
        _drop_links(mapping.kernel_device)


def _as_it_is(folder: Path, mapping: Mapping, read_only: bool) -> Mapping:
    """A volume that is mapped already; its device gets the volume's present size."""
    if mapping.read_only == read_only:
        renew_attributes(folder / mapping.volume)
        loop.refresh_size(mapping.kernel_device)
        return mapping
    mode = "read-only" if mapping.read_only else "for writing"
    raise VolumeBusy(
        f'"{mapping.volume}" is mapped {mode} as {mapping.device}: unmap it first'
    )


def _refusal(name: str, error: OSError) -> ArchipelagoError:
    """Why the file of a volume cannot be opened, or a loop device not be made."""
    if error.errno == errno.ENOENT and error.filename and "loop" in error.filename:
        return ArchipelagoError(
            'this machine has no loop devices: "archipelago doctor" says what it has'
        )
    if error.errno == errno.ENOENT:
        return VolumeNotFound(
            f'there is no volume or snapshot "{name}": "vlmc list" shows what there is'
        )
    if error.errno == errno.EROFS:
        return UsageError(f'"{name}" is a snapshot: map it with --read-only')
    if error.errno == errno.EBUSY:
        return LeaseHeld(
            f'"{name}" is in use elsewhere: "vlmc info {name}" shows where'
        )
    return ArchipelagoError(f'cannot map "{name}": {error.strerror}')


# ---- names of devices ----------------------------------------------------------------


def _links() -> dict[str, int]:
    """N of the name of each kernel device."""
    found = {}
    for path in Path("/dev").glob(f"{Path(_LINK).name}*"):
        match = re.fullmatch(re.escape(_LINK) + r"([1-9]\d*)", str(path))
        if match:
            with contextlib.suppress(OSError):
                found[os.path.join("/dev", os.readlink(path))] = int(match.group(1))
    return found


def _make_link(kernel_device: str) -> None:
    """Give a device the first free name."""
    number = 0
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            os.symlink(os.path.basename(kernel_device), f"{_LINK}{number}")
            return


def _drop_links(kernel_device: str) -> None:
    number = _links().get(kernel_device)
    if number is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{_LINK}{number}")


def _mapping(device: loop.LoopDevice, links: dict[str, int]) -> Mapping:
    number = links.get(device.path, 0)
    return Mapping(
        id=number,
        volume=os.path.basename(device.backing_file),
        device=f"{_LINK}{number}" if number else device.path,
        kernel_device=device.path,
        driver="loop",
        read_only=device.read_only,
    )


# ---- what a stop or a crash left -----------------------------------------------------


def _device_of(folder: Path) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None


def _clear_stale(folder: Path) -> None:
    """Let go devices whose mount is gone, and names whose device is."""
    here = _device_of(folder)
    for device in loop.attached(folder):
        if device.backing_dev != here and not device_holders(device.path):
            with contextlib.suppress(OSError):
                loop.discard(device.path)
                _drop_links(device.path)
    for path in _links():
        if not Path("/sys/block", os.path.basename(path), "loop").is_dir():
            _drop_links(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One command of this instance at a time.  The lock ends with the process."""
    path = folder.parent / "map.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
