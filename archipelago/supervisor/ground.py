# SPDX-License-Identifier: Apache-2.0
"""What must be there before peers can start: directories, segment, sockets.

All of it is made by the supervisor and outlives the peers, so that a peer that is
restarted finds its segment, and clients their socket, where they were.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import site
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from archipelago.errors import ArchipelagoError, ConfigError
from archipelago.settings import Settings
from archipelago.supervisor import store
from archipelago.supervisor.lock import AlreadyRunning
from archipelago.supervisor.record import Record
from xseg import Segment
from xseg.constants import PORT_DYNAMIC
from xseg.errors import AlreadyExists, NotFound, NotPermitted, XsegError

log = logging.getLogger(__name__)

#: How long peers of a supervisor that died may take to end [s].
ORPHAN_PATIENCE = 20.0
#: How long children that a supervisor left behind prepared may hold its socket [s].
_HEIR_PATIENCE = 5.0
#: Size of the memory in which marks survive mapperd [bytes].
MARK_LOG_BYTES = 4 << 20


class StartError(ArchipelagoError):
    """The instance, or a peer of it, cannot start."""

    msgid = "start"

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


def make_directories(settings: Settings) -> None:
    """Make the directories that are missing, and open those that exist to the group.

    Raises:
        ConfigError: one cannot be made or opened, or is not ours where it must be.
    """
    shared = settings.gid is not None
    private = 0o750 if shared else 0o700
    half = 0o2770 if shared else 0o700
    wanted = [("run_dir", private), ("log_dir", private), ("state_dir", private)]
    if settings.backend == "file":
        wanted += [("data_path", half), ("maps_path", half)]
    if settings.locations.home is not None:
        _make(settings.locations.home, private, settings, "home")
    for key, mode in wanted:
        _make(getattr(settings, key), mode, settings, key)
    if settings.socket_dir != settings.run_dir:
        _make(settings.socket_dir, private, settings, "run_dir")
    for directory in {settings.socket_dir, settings.run_dir}:
        _check_private(directory)


def _make(path: Path, mode: int, settings: Settings, key: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                raise
            _open_to_group(path, mode, settings, key)
            return
        if settings.gid is not None:
            os.chown(path, -1, settings.gid)
        path.chmod(mode)
    except OSError as error:
        origin = settings.origins.get(key, "instance")
        why = error.strerror
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            why = "a file is in its place"
        raise ConfigError(
            f"{origin}: {key} = '{path}': cannot make the directory: {why}; name "
            "another, or set ARCHIPELAGO_HOME to a directory of your own"
        ) from None


def _open_to_group(path: Path, mode: int, settings: Settings, key: str) -> None:
    """Let the group enter a directory that was made before the group was set.

    Raises:
        ConfigError: it is another user's; the message has the command to type.
    """
    if settings.gid is None:
        return
    found = path.stat()
    wanted = mode & 0o2070
    if found.st_gid == settings.gid and found.st_mode & wanted == wanted:
        return
    if found.st_mode & 0o007 >= (wanted & 0o070) >> 3:
        return  # all users may do there what the group needs
    if found.st_uid != os.geteuid():
        bits = "g+rwxs" if wanted & stat.S_ISGID else "g+rx"
        raise ConfigError(
            f"{settings.origins['group']}: group = '{settings.group}': its members "
            f"cannot enter {key} '{path}', which belongs to user {found.st_uid}: run "
            f"'chgrp {settings.group} {path} && chmod {bits} {path}'"
        )
    log.warning("%s is opened to group %s", path, settings.group)
    os.chown(path, -1, settings.gid)
    path.chmod(stat.S_IMODE(found.st_mode) | wanted)


def _check_private(path: Path) -> None:
    """Refuse a directory in which another user could put sockets."""
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{path}: belongs to user {status.st_uid}, not to you: its owner could "
            "take your clients' connections; remove it or set run_dir to another"
        )
    if status.st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"{path}: everybody may write there and take your clients' connections; "
            f"run 'chmod o-w {path}' or set run_dir to another"
        )


def prepare(settings: Settings) -> None:
    """Set the umask, check the store and make the directories.

    Raises:
        ConfigError: what is wrong and how to mend it.
    """
    store.check(settings)  # first: a start that is refused makes nothing
    prepare_new(settings)


def prepare_new(settings: Settings) -> None:
    """Set the umask and make the directories, whatever the store was before.

    Raises:
        ConfigError: what is wrong and how to mend it.
    """
    os.umask(0o007 if settings.group else 0o077)
    make_directories(settings)


def child_environment() -> dict[str, str]:
    """The environment of processes of ours: they must find this package from ``/``.

    They run there because ``python -m`` imports from its directory before all others,
    and anybody's ``logging.py`` may lie where an administrator happens to be.
    """
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    if root not in site.getsitepackages() and root != site.getusersitepackages():
        known = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return environment


# The segment


def create_segment(settings: Settings, record: Record) -> Segment:
    """Create the segment, in place of one that a dead supervisor left behind.

    Args:
        settings: of the instance.
        record: what supervisors of the instance have started.
    """
    name = settings.segment_name
    wanted = settings.segment
    remove_stale_segment(name, record)
    try:
        return Segment.create(
            name,
            ports=wanted.ports,
            requests=wanted.requests,
            heap_bytes=wanted.heap,
            mode=0o660 if settings.group else 0o600,
            gid=-1 if settings.gid is None else settings.gid,
        )
    except AlreadyExists:
        raise StartError(
            f"segment {name} was made by another process just now; is another "
            "instance starting?"
        ) from None
    except XsegError as error:
        raise StartError(
            f"cannot create segment {name} with a heap of {wanted.heap >> 20} MiB: "
            f"{error.strerror or error}; 'df /dev/shm' shows what is free, "
            "segment.heap sets the size",
            error.exit_code,
        ) from None


def remove_stale_segment(name: str, record: Record) -> None:
    """Remove a segment whose supervisor is gone, once its peers have ended.

    Only the holder of the pid lock may call this.

    Raises:
        StartError: a supervisor lives that holds it; its pid file was removed.
    """
    held = hold_segment(name)
    if held is not None:
        os.close(held)
    try:
        segment = Segment.attach(name)
    except NotFound:
        return
    except NotPermitted as error:
        raise StartError(str(error.strerror)) from None
    except XsegError as error:
        log.warning("segment %s is of no use (%s): removed", name, error)
    else:
        try:
            _await_orphans(segment, record)
        finally:
            segment.close()
    log.warning("removing segment %s of a supervisor that died", name)
    with contextlib.suppress(NotFound):
        Segment.destroy(name)


def hold_segment(name: str) -> int | None:
    """Lock a segment for as long as its supervisor lives.

    The lock (flock) shows in every namespace, however the supervisor is hidden.

    Returns:
        The descriptor that holds the lock; None if there is no such segment, or it is
        another user's.

    Raises:
        StartError: a supervisor that lives holds it.
    """
    try:
        fd = os.open(f"/dev/shm/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StartError(
            f"segment {name} belongs to a supervisor that runs, though the run "
            "directory has no trace of it: end that one first ('lsof /dev/shm/"
            f"{name}' shows its processes)",
            AlreadyRunning.exit_code,
        ) from None
    return fd


def _await_orphans(segment: Segment, record: Record) -> None:
    """Wait for peers to end that lost their supervisor; end those that do not.

    Only a process that a supervisor has started is killed: a segment's word is not
    enough.

    Raises:
        StartError: another process has a peer's port, and does not end.
    """
    deadline = time.monotonic() + ORPHAN_PATIENCE
    for pid, fd in list(_orphans(segment)):
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            left = max(0.0, deadline - time.monotonic())
            log.info("waiting for pid %d of the last supervisor to end", pid)
            if not poller.poll(left * 1000):
                if not record.knows(pid):
                    raise StartError(
                        f"process {pid} has a peer's port in segment {segment.name}, "
                        "and no supervisor of this instance has started it: end it, "
                        "then start again"
                    )
                log.warning("pid %d does not end: killed", pid)
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                poller.poll(5000)
        finally:
            os.close(fd)


def _orphans(segment: Segment) -> Iterator[tuple[int, int]]:
    """Living processes with one of our peers' ports: pid and pidfd."""
    seen = set()
    for port in segment.ports():
        pid = port.owner_pid
        if port.id < PORT_DYNAMIC and port.alive and pid not in seen:
            seen.add(pid)
            try:
                yield pid, os.pidfd_open(pid)
            except ProcessLookupError:
                continue


# Listening sockets


def make_mark_log() -> int:
    """Make the memory in which the mapper's marks outlive it.

    It is sealed against shrinking, so a peer that maps it may rely on its size.

    Returns:
        A memfd; the caller closes it.
    """
    fd = os.memfd_create("archipelago-marks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, MARK_LOG_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd


def listen(settings: Settings) -> list[socket.socket]:
    """Open the sockets that NBD clients connect to.

    Raises:
        StartError: an address is taken or cannot be used.
    """
    sockets: list[socket.socket] = []
    try:
        sockets.append(_listen_unix(settings.nbd_socket, settings))
        if settings.nbd.listen:
            sockets.extend(_listen_tcp(settings.nbd.listen, settings.nbd.port))
    except OSError as error:
        if sockets:  # the first of them is the unix socket
            settings.nbd_socket.unlink()
        for sock in sockets:
            sock.close()
        where = f"{error.filename}: " if error.filename is not None else ""
        raise StartError(
            f"cannot listen for NBD: {where}{error.strerror or error}; nbd.socket, "
            "nbd.listen and nbd.port set the addresses"
        ) from None
    return sockets


def _listen_unix(path: Path, settings: Settings) -> socket.socket:
    _remove_dead_socket(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        try:
            sock.bind(str(path))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        own_socket(path, settings)
        sock.listen(socket.SOMAXCONN)
    except BaseException:
        sock.close()
        raise
    return sock


def own_socket(path: Path, settings: Settings) -> None:
    """Let only the user and the group connect to a socket."""
    if settings.gid is not None:
        os.chown(path, -1, settings.gid)
    path.chmod(0o660 if settings.gid is not None else 0o600)


def _remove_dead_socket(path: Path) -> None:
    """Unlink a socket on which no process listens; other files are left alone."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(f"{path} exists and is no socket")
    deadline = time.monotonic() + _HEIR_PATIENCE
    while _is_heard(path):
        if time.monotonic() >= deadline:
            raise OSError(f"another process listens on {path} already")
        time.sleep(0.02)
    path.unlink(missing_ok=True)


def _is_heard(path: Path) -> bool:
    """Whether a process listens on a socket, or may."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass
    return True


def _listen_tcp(address: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError as error:
            where = f"{address} port {port}"
            raise OSError(error.errno, error.strerror, where) from None
        sock.listen(socket.SOMAXCONN)
    except BaseException:
        sock.close()
        raise
    yield sock
