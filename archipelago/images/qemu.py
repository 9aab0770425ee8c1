# SPDX-License-Identifier: Apache-2.0
"""Images that QEMU reads for us: qemu-img checks them, qemu-nbd serves their bytes.

QEMU gets the open file and the format, and is told to open nothing else.  Once it has
opened the image, its descriptors are compared with that, before a byte is read: the
header may have been changed between our look at it and QEMU's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator

from archipelago.errors import UsageError
from archipelago.images.nbd import NbdConnection

__all__ = ["QemuImage", "qemu_image"]

#: Connections to qemu-nbd: so many blocks are read at once.
_CONNECTIONS = 4
#: QEMU's exit codes of "check": the image is damaged, or cannot be checked at all.
_DAMAGED = (1, 2)
#: The socket under the number that socket activation wants: `sd_listen_fds`(3).
_SERVE = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 0</dev/null'
#: Descriptors above this are not taken by the shell or by the socket.
_HIGH_FD = 10


class QemuImage:
    """The bytes of an image, read through qemu-nbd.

    Args:
        connections: to its server, all of one export.
        name: of the image, for messages.
    """

    def __init__(self, connections: list[NbdConnection], name: str) -> None:
        self._connections = connections
        self._name = name
        self._idle: queue.LifoQueue[NbdConnection] = queue.LifoQueue()
        for connection in connections:
            self._idle.put(connection)
        self.size = connections[0].size

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill a buffer from `offset` [bytes]."""
        with self._connection(offset) as connection:
            connection.read_into(view, offset)

    def next_data(self, offset: int) -> tuple[int, int]:
        """The next range at or behind `offset` that may hold data [bytes]."""
        with self._connection(offset) as connection:
            return connection.next_data(offset)

    def cancel(self) -> None:
        """Let threads that read get an error."""
        for connection in self._connections:
            connection.cancel()

    @contextlib.contextmanager
    def _connection(self, offset: int) -> Iterator[NbdConnection]:
        connection = self._idle.get()
        try:
            yield connection
        except OSError as error:
            raise UsageError(
                f"{self._name} cannot be read at {offset}: {error.strerror or error}; "
                "it is damaged, or was not copied whole"
            ) from error
        finally:
            self._idle.put(connection)


@contextlib.contextmanager
def qemu_image(fd: int, name: str, driver: str) -> Iterator[QemuImage]:
    """Check an image, and serve it while the context lasts.

    Args:
        fd: the image, a file or block device.
        name: its name, for messages.
        driver: QEMU's name of the format.

    Raises:
        UsageError: QEMU cannot read it, it is damaged, or it opens another file.
    """
    for program in ("qemu-img", "qemu-nbd"):
        if shutil.which(program) is None:
            raise UsageError(
                f"{name} is a {driver} image, which needs {program}: apt install "
                "qemu-utils, or convert it to raw elsewhere"
            )
    image = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
    try:
        _check(image, name, driver)
        with _served(image, name, driver) as connections:
            yield QemuImage(connections, name)
    finally:
        os.close(image)


def _pinned(fd: int, driver: str) -> str:
    """What QEMU is to open: this descriptor, nothing behind it, nothing beside it."""
    block = stat.S_ISBLK(os.fstat(fd).st_mode)
    return "json:" + json.dumps(
        {
            "driver": driver,
            "read-only": True,
            "backing": None,
            "file": {
                "driver": "host_device" if block else "file",
                "filename": _path(fd),
                "read-only": True,
            },
        }
    )


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _check(fd: int, name: str, driver: str) -> None:
    """Refuse a damaged image: what is cut off would be read as zeros."""
    done = subprocess.run(
        ["qemu-img", "check", "--", _pinned(fd, driver)],
        capture_output=True,
        text=True,
        check=False,
        pass_fds=(fd,),
    )
    if done.returncode not in _DAMAGED:
        return
    # 1 also stands for an image that could not be opened: that has its own reason.
    if done.returncode == 1 and "Could not open" in done.stderr:
        raise _unreadable(name, done.stderr, fd)
    raise UsageError(
        f"{name} is damaged or was not copied whole: get it again, or look with "
        f"\"qemu-img check '{name}'\""
    )


@contextlib.contextmanager
def _served(fd: int, name: str, driver: str) -> Iterator[list[NbdConnection]]:
    """Run qemu-nbd and connect to it; it ends with the context."""
    with (
        tempfile.TemporaryDirectory(prefix="archipelago-") as folder,
        tempfile.TemporaryFile() as said,
        contextlib.ExitStack() as connected,
    ):
        # The folder is ours alone, and so is the socket.
        where = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        connected.callback(os.close, where)
        address = f"/proc/self/fd/{where}/nbd"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(_CONNECTIONS)
            server = subprocess.Popen(
                ["/bin/sh", "-c", _SERVE, "sh", "qemu-nbd", "--read-only",
                 f"--shared={_CONNECTIONS}", _pinned(fd, driver)],
                stdin=listener.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=(fd,),
            )  # fmt: skip
        connected.callback(_end, server)
        connections = []
        try:
            for _ in range(_CONNECTIONS):
                sock = connected.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(address)
                connections.append(NbdConnection(sock))
        except OSError as error:
            server.wait()
            said.seek(0)
            told = said.read().decode(errors="replace")
            raise _unreadable(name, told or str(error), fd) from error
        _refuse_other_files(server.pid, fd, name)
        yield connections


def _end(server: subprocess.Popen[bytes]) -> None:
    """End qemu-nbd: it only reads, so there is nothing that it must finish."""
    server.kill()
    server.wait()


def _refuse_other_files(pid: int, fd: int, name: str) -> None:
    """Compare the files that qemu-nbd has open with the one that it may have."""
    ours = os.fstat(fd)
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found = os.stat(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue  # closed meanwhile
        if stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode):
            other = (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino)
            # Its standard error is a file of ours, without a name.
            if other and number != "2":
                raise UsageError(
                    f"{name} names another file, and import opens no other file"
                )


def _unreadable(name: str, told: str, fd: int) -> UsageError:
    """The error for what QEMU said when it could not open an image."""
    lines = told.strip().splitlines() or ["it failed"]
    reason = lines[-1].split("': ", 1)[-1].replace(_path(fd), name)
    return UsageError(f"QEMU cannot read {name}: {reason}")
