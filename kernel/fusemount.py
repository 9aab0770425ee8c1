# SPDX-License-Identifier: Apache-2.0
"""Mount and unmount FUSE connections.

A connection is one open ``/dev/fuse``.  Root mounts it with mount(2); other users ask
the setuid helper ``fusermount3``, which sends the descriptor back over a socket.  The
connection lives as long as a process keeps the descriptor open.

Source: Linux `Documentation/filesystems/fuse.rst`; fusermount3(1).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

__all__ = ["FUSERMOUNT", "mount", "mounted_type", "unmount"]

FUSERMOUNT = "fusermount3"
#: mount(2) and umount2(2).
_MS_NOSUID, _MS_NODEV = 2, 4
_MNT_DETACH = 2
_PATIENCE = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def mount(
    folder: os.PathLike[str] | str, *, source: str, subtype: str, others: bool
) -> int:
    """Mount a new connection on a folder.

    Args:
        folder: an existing directory.
        source: what mountinfo shows as the source.
        subtype: what mountinfo shows behind "fuse.".
        others: users besides the mounting one may enter, as the files' modes say.

    Returns:
        The descriptor of the connection, close-on-exec; the caller's.

    Raises:
        OSError: it cannot be mounted; the text says why.
    """
    where = os.fspath(folder)
    if os.geteuid() == 0:
        return _mount_as_root(where, source, subtype, others)
    return _mount_as_user(where, source, subtype)


def _mount_as_root(where: str, source: str, subtype: str, others: bool) -> int:
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    options = [
        f"fd={fd}",
        f"rootmode={stat.S_IFDIR:o}",
        f"user_id={os.geteuid()}",
        f"group_id={os.getegid()}",
        "default_permissions",
    ]
    if others:
        options.append("allow_other")
    done = _libc.mount(
        source.encode(),
        os.fsencode(where),
        f"fuse.{subtype}".encode(),
        ctypes.c_ulong(_MS_NOSUID | _MS_NODEV),
        ",".join(options).encode(),
    )
    if done != 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, os.strerror(number), where)
    return fd


def _mount_as_user(where: str, source: str, subtype: str) -> int:
    helper = shutil.which(FUSERMOUNT)
    if helper is None:
        raise OSError(
            errno.ENOENT,
            f"{FUSERMOUNT} is not installed: a user other than root needs it to mount "
            "(Debian: apt install fuse3)",
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        command = [
            helper,
            "-o",
            f"default_permissions,fsname={source},subtype={subtype}",
            "--",
            where,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            reason = done.stderr.strip() or f"exit {done.returncode}"
            raise OSError(errno.EPERM, f"{FUSERMOUNT}: {reason}", where)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise OSError(errno.EPROTO, f"{FUSERMOUNT} sent no descriptor", where)
    os.set_inheritable(fds[0], False)
    os.set_blocking(fds[0], False)
    return fds[0]


def unmount(folder: os.PathLike[str] | str, *, lazy: bool = False) -> None:
    """Unmount a folder.

    Args:
        folder: the mount point.
        lazy: detach it although files of it are open; they fail when the connection
            ends.

    Raises:
        OSError: EBUSY: files of it are open, and not `lazy`.
    """
    where = os.fspath(folder)
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(where), _MNT_DETACH if lazy else 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), where)
        return
    command = [FUSERMOUNT, "-u", *(["-z"] if lazy else []), "--", where]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    if done.returncode != 0:
        raise OSError(errno.EBUSY, done.stderr.strip(), where)


def mounted_type(folder: os.PathLike[str] | str) -> str | None:
    """The type of what is mounted on a folder, such as "fuse.archipelago"; or None."""
    where = os.path.realpath(folder)
    found = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4]
        if point.encode().decode("unicode_escape").encode("latin-1").decode() == where:
            found = right.split(" ")[0]  # the last one covers those before it
    return found
