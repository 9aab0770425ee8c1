# SPDX-License-Identifier: Apache-2.0
"""The FUSE mounts of one instance: made here, served by vlmcd's process.

The supervisor keeps each connection and the memory of its nodes open, so that a mount
outlives the process that serves it.  Whenever vlmcd's process starts, the mounts are
handed to it (``src/endpoint/fuse/attach.h``).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archipelago.errors import ArchipelagoError, UsageError, VolumeBusy
from archipelago.mapping import release_all
from kernel import fusemount

__all__ = ["MOUNT_TYPE", "Mounts"]

log = logging.getLogger(__name__)

#: What mountinfo shows as the type of our mounts is "fuse." and this.
_SUBTYPE = "archipelago"
MOUNT_TYPE = f"fuse.{_SUBTYPE}"
#: struct fuse_attach: magic, version, uid, gid, mode, reserved, path.
_ATTACH = struct.Struct("=6I 232s")
_ATTACH_MAGIC = 0x46504341
_ANSWER = struct.Struct("=i")
#: fuse_nodes_bytes(): the table and 131,072 records; sparse.
_NODES_BYTES = 4096 + (1 << 17) * 320
#: How long vlmcd's process may take to answer [s].
_PATIENCE = 10.0


@dataclass(frozen=True)
class _Mount:
    """One mount; the descriptors are closed with it."""

    path: Path
    fd: int
    nodes_fd: int

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.nodes_fd)


class Mounts:
    """What is mounted.

    Args:
        run_dir: of the instance.  Its own mount and the socket for vlmcd lie there.
        gid: group of the files; None: the supervisor's, and only its user may use them.
    """

    def __init__(self, run_dir: Path, gid: int | None) -> None:
        self._gid = os.getegid() if gid is None else gid
        self._mode = 0o600 if gid is None else 0o660
        self._mounts: dict[Path, _Mount] = {}
        self._socket_path = run_dir / "attach.sock"
        self._socket: socket.socket | None = None
        #: Where `vlmc map` finds the files under its loop devices.
        self.own = run_dir / "volumes"

    @property
    def attach_fd(self) -> int:
        """The listening socket, for vlmcd's process to inherit; -1: there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def open(self) -> None:
        """Listen, and clear away what a supervisor that was killed left mounted."""
        _clear_dead(self.own)
        self._socket_path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with _short(self._socket_path) as address:
            self._socket.bind(address)
        self._socket_path.chmod(0o600)
        self._socket.listen(16)
        self._socket.setblocking(False)

    def mount(self, folder: str | None) -> Path:
        """Mount all volumes on a folder; nothing happens if they are there.

        Args:
            folder: absolute path of an empty directory; None: the instance's own.

        Returns:
            The mount point.

        Raises:
            UsageError: the folder cannot be used.
            ArchipelagoError: it cannot be mounted, or vlmcd does not serve it.
        """
        where = self.own if folder is None else Path(folder).resolve()
        if where in self._mounts:
            return where
        if folder is None:
            where.mkdir(mode=0o700, exist_ok=True)
        else:
            _check_usable(folder)
        try:
            fd = fusemount.mount(
                where, source=_SUBTYPE, subtype=_SUBTYPE, others=folder is not None
            )
        except OSError as error:
            raise ArchipelagoError(
                f"cannot mount volumes on {where}: {error.strerror}; "
                '"archipelago doctor" says what this machine has'
            ) from error
        nodes_fd = os.memfd_create("archipelago-nodes", os.MFD_CLOEXEC)
        os.ftruncate(nodes_fd, _NODES_BYTES)
        mount = _Mount(where, fd, nodes_fd)
        try:
            self._hand_over(mount)
        except OSError as error:
            with contextlib.suppress(OSError):
                fusemount.unmount(where, lazy=True)
            mount.close()
            raise ArchipelagoError(
                f"vlmcd does not serve {where}: {error.strerror or error}"
            ) from error
        self._mounts[where] = mount
        log.info("volumes are mounted on %s", where)
        return where

    def unmount(self, folder: str, *, force: bool = False) -> None:
        """Unmount a folder.

        Raises:
            UsageError: nothing of ours is mounted there.
            VolumeBusy: files there are open, and not `force`.
        """
        where = Path(folder)
        if where not in self._mounts:
            raise UsageError(f"{where} is no mount of this instance: nothing to undo")
        self._unmount(self._mounts[where], force=force)

    def hand_over_all(self) -> None:
        """Hand all mounts to a process of vlmcd that has just started."""
        for mount in self._mounts.values():
            try:
                self._hand_over(mount)
            except OSError as error:
                log.error("%s is not served: %s", mount.path, error)

    def close(self) -> None:
        """Take devices and mounts away, busy or not, and stop listening."""
        if self.own in self._mounts:
            release_all(self.own)
        for mount in list(self._mounts.values()):
            try:
                self._unmount(mount, force=True)
            except ArchipelagoError as error:
                log.error("%s", error.message)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            # A file system that has gone read-only keeps it: no process listens there.
            with contextlib.suppress(OSError):
                self._socket_path.unlink()

    def _unmount(self, mount: _Mount, *, force: bool) -> None:
        try:
            fusemount.unmount(mount.path, lazy=force)
        except OSError as error:
            if error.errno == errno.EBUSY and not force:
                raise VolumeBusy(
                    f"files below {mount.path} are open: close them, then try again"
                ) from error
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise ArchipelagoError(
                    f"cannot unmount {mount.path}: {error.strerror}"
                ) from error
        del self._mounts[mount.path]
        mount.close()
        log.info("%s is unmounted", mount.path)

    def _hand_over(self, mount: _Mount) -> None:
        message = _ATTACH.pack(
            _ATTACH_MAGIC,
            1,
            os.geteuid(),
            self._gid,
            self._mode,
            0,
            os.fsencode(mount.path)[:231],
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sender:
            sender.settimeout(_PATIENCE)
            with _short(self._socket_path) as address:
                sender.connect(address)
            socket.send_fds(sender, [message], [mount.fd, mount.nodes_fd])
            answer = sender.recv(_ANSWER.size)
        if len(answer) != _ANSWER.size:
            raise OSError(errno.EPIPE, "vlmcd ended")
        (result,) = _ANSWER.unpack(answer)
        if result < 0:
            raise OSError(-result, os.strerror(-result))


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The same path in a form that fits into a socket's address, however deep it is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _check_usable(folder: str) -> None:
    """Raise unless volumes can be mounted on a folder."""
    where = Path(folder)
    if not where.is_absolute():
        raise UsageError(f"{folder} is not an absolute path")
    if not where.is_dir():
        raise UsageError(f"{folder} is no directory: make it with mkdir")
    if any(where.iterdir()):
        raise UsageError(f"{folder} is not empty: choose an empty directory")


def _clear_dead(where: Path) -> None:
    """Unmount what is mounted there and served by no process any more."""
    while fusemount.mounted_type(where) == MOUNT_TYPE:
        log.warning("%s was left mounted: unmounted", where)
        fusemount.unmount(where, lazy=True)
