# SPDX-License-Identifier: Apache-2.0
"""The address of a running supervisor that no deleted file and no setting can hide.

Beside the socket in the run directory, a supervisor listens on an abstract unix socket.
Its name follows from the instance's place alone, and the kernel drops it when the
process ends.  So a command finds the supervisor without reading the configuration, and
two supervisors of one instance cannot both have it.

An abstract socket has no permissions, so both ends look at the other's user: a command
believes only a supervisor of a user that may run the instance; a supervisor obeys only
its own user, root, and members of the instance's group.

Source: unix(7), "abstract sockets" and SO_PEERCRED; socket(7), SO_PEERGROUPS.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

from archipelago.paths import Locations
from archipelago.supervisor.lock import AlreadyRunning

__all__ = ["connect", "listen", "may_command", "peer_pid"]

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS = 59  # Linux 4.13; Python has no name for it
_GROUPS_BYTES = 1024  # the most that Python asks for: 256 groups
#: How long the supervisor that has the address may take to be connected to [s].
_PATIENCE = 5.0


def connect(where: Locations, patience: float) -> socket.socket | None:
    """Connect to the running supervisor.

    Args:
        where: the instance.
        patience: timeout of the connection and of what is done with it [s].

    Returns:
        A connected socket; None if no supervisor that can be believed is there.
    """
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(patience)
    try:
        sock.connect(_name(where))
        if _peer(sock)[1] in _owners(where):
            return sock
    except OSError:
        pass
    sock.close()
    return None


def listen(where: Locations) -> socket.socket | None:
    """Take the address.

    Returns:
        A listening socket; None if a stranger has the address: then only the socket in
        the run directory remains.

    Raises:
        AlreadyRunning: a supervisor of this instance has it.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(_name(where))
        sock.listen(socket.SOMAXCONN)
        return sock
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
    living = connect(where, _PATIENCE)
    if living is not None:
        with living:
            raise AlreadyRunning.of(_peer(living)[0])
    import logging

    log = logging.getLogger(__name__)
    log.warning("another user's process has the address @%s", _name(where)[1:])
    return None


def may_command(sock: socket.socket, gid: int | None) -> bool:
    """Whether the process at the other end may command this supervisor.

    Args:
        sock: a connection to the abstract socket.
        gid: the instance's group; None if it has none.
    """
    _, uid, primary = _peer(sock)
    if uid in (0, os.geteuid()):
        return True
    return gid is not None and gid in {primary, *_groups(sock)}


def peer_pid(sock: socket.socket) -> int:
    """Process that listens at the other end of a unix socket; 0 if it is not seen."""
    return _peer(sock)[0]


def _name(where: Locations) -> str:
    return f"\0archipelago/{where.tag}"


def _owners(where: Locations) -> set[int]:
    """Users that may run this instance: root, this user, and the owner of its home."""
    owners = {0, os.geteuid()}
    if where.home is not None:
        owners |= _owner(where.home)
    return owners


def _owner(path: Path) -> set[int]:
    try:
        return {path.stat().st_uid}
    except OSError:
        return set()


def _peer(sock: socket.socket) -> tuple[int, int, int]:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def _groups(sock: socket.socket) -> list[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return []
    return [gid for (gid,) in struct.iter_unpack("I", raw)]
