# SPDX-License-Identifier: Apache-2.0
"""The commands' end of the supervisor's control socket.

A command finds the supervisor by the place of the instance alone.  The settings are
read only when that finds none, because they may name another run directory: so a
mistake in the configuration keeps no command from what runs.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archipelago import paths
from archipelago.errors import ArchipelagoError, ConfigError, NotAnswering, NotRunning
from archipelago.paths import Locations
from archipelago.supervisor import address, lock

__all__ = [
    "Facts",
    "NoSupervisor",
    "SupervisorError",
    "ask",
    "facts",
    "log_of",
    "refuse_second",
]

#: How long the supervisor may take for a change [s]: longer than any of its own waits.
_PATIENCE = 600.0
#: How long it may take for a report, which it makes at any moment [s].
REPORT_PATIENCE = 10.0
_REPORTS = frozenset({"status", "settings"})


class SupervisorError(ArchipelagoError):
    """The supervisor refused; its own exit code and msgid are kept."""

    def __init__(self, message: str, exit_code: int = 1, msgid: str = "error") -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
        self.msgid = msgid  # type: ignore[misc]


class NoSupervisor(NotRunning):
    """There is no supervisor, and none is starting or stopping."""


@dataclass(frozen=True)
class Facts:
    """What clients want to know of a running instance's settings.

    Attributes:
        nbd_socket: where NBD clients connect.
        block_size: of new volumes [bytes].
        state_dir: what must survive a reboot.
    """

    nbd_socket: Path
    block_size: int
    state_dir: Path


def facts(where: Locations) -> Facts:
    """Ask the running supervisor; of peers without one, read the settings.

    Raises:
        NotRunning, NotAnswering, SupervisorError: as `ask`.
        ConfigError: peers that no supervisor started, and settings with a mistake.
    """
    try:
        settings = ask(where, "settings")["settings"]
    except NoSupervisor:
        from archipelago.settings import load_settings

        read = load_settings(where.home)
        return Facts(read.nbd_socket, read.block_size, read.state_dir)
    return Facts(
        Path(settings["nbd.socket"]["value"]),
        settings["block_size"]["value"],
        Path(settings["state_dir"]["value"]),
    )


def ask(
    where: Locations,
    command: str,
    *,
    until_end: bool = False,
    patience: float | None = None,
    **members: Any,
) -> dict[str, Any]:
    """Give the supervisor a command and wait for its answer.

    Args:
        where: the instance.
        command: its name.
        until_end: also wait until the supervisor has ended.
        patience: how long to wait for the answer [s]; None: as the command may take.
        members: more members of the request.

    Raises:
        NoSupervisor: none runs.
        NotRunning: it went away meanwhile, or is starting or stopping.
        NotAnswering: it hangs.
        SupervisorError: it said why not.
    """
    request = {"command": command, **members}
    if patience is None:
        patience = REPORT_PATIENCE if command in _REPORTS else _PATIENCE
    with _connect(where, patience) as sock, sock.makefile("rb") as lines:
        try:
            sock.sendall(json.dumps(request).encode() + b"\n")
            line = lines.readline()
            answer = json.loads(line or b"{}")
            if until_end and answer.get("ok"):
                lines.read()
        except ConnectionError:
            answer = {}
        except TimeoutError:
            pid = address.peer_pid(sock)
            raise NotAnswering(
                f"the supervisor (pid {pid}) has not answered for {patience:.0f} "
                f"seconds; see {log_of(where)}.  If it hangs, 'kill -9 {pid}' and "
                "'archipelago start' replace it"
            ) from None
    if not answer:
        raise NotRunning(f"the supervisor ended meanwhile; see {log_of(where)}")
    if not answer.pop("ok"):
        raise SupervisorError(answer["message"], answer["exit_code"], answer["msgid"])
    return dict(answer)


def log_of(where: Locations, log_dir: Path | None = None) -> Path:
    """The supervisor's log."""
    return (log_dir or where.log_dir) / "supervisor.log"


def _connect(where: Locations, patience: float) -> socket.socket:
    found = address.connect(where, patience)
    if found is not None:
        return found
    for run_dir in _run_dirs(where):
        path = paths.socket_dir(run_dir, where.tag) / "supervisor.sock"
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(patience)
        try:
            sock.connect(str(path))
            return sock
        except PermissionError:
            sock.close()
            raise NotRunning(
                f"{path}: permission denied; only its user and its group may command "
                "this instance"
            ) from None
        except OSError:
            sock.close()
        pid = lock.holder(run_dir / "supervisor.pid")
        if pid is not None:
            raise NotRunning(
                f"pid {pid} is starting or stopping just now; try again, or see "
                f"{log_of(where)}"
            )
    raise NoSupervisor("archipelago is not running; 'archipelago start' starts it")


def _run_dirs(where: Locations) -> Iterator[Path]:
    """Where the sockets may be: the default, and what the settings say."""
    yield where.run_dir
    from archipelago.settings import load_settings

    try:
        run_dir = load_settings(where.home).run_dir
    except ConfigError:
        return  # `start` says what is wrong
    if run_dir != where.run_dir:
        yield run_dir


def refuse_second(where: Locations) -> None:
    """Refuse to start an instance that runs, whatever became of its run directory.

    Raises:
        AlreadyRunning: a supervisor has the instance's address.
    """
    found = address.connect(where, REPORT_PATIENCE)
    if found is not None:
        with found:
            raise lock.AlreadyRunning.of(address.peer_pid(found))
