# SPDX-License-Identifier: Apache-2.0
"""The commands' end of the supervisor's control socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from archipelago.errors import ArchipelagoError, NotRunning
from archipelago.settings import Settings
from archipelago.supervisor import lock

__all__ = ["SupervisorError", "ask"]

#: How long the supervisor may take for a command [s]: longer than any of its own waits.
_PATIENCE = 600.0


class SupervisorError(ArchipelagoError):
    """The supervisor refused; its own exit code and msgid are kept."""

    def __init__(self, message: str, exit_code: int = 1, msgid: str = "error") -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
        self.msgid = msgid  # type: ignore[misc]


def ask(
    settings: Settings, command: str, *, until_end: bool = False, **members: Any
) -> dict[str, Any]:
    """Give the supervisor a command and wait for its answer.

    Args:
        settings: of the instance.
        command: its name.
        until_end: also wait until the supervisor has ended.
        members: more members of the request.

    Raises:
        NotRunning: there is no supervisor, or it went away.
        SupervisorError: it said why not.
    """
    request = {"command": command, **members}
    with _connect(settings) as sock, sock.makefile("rb") as lines:
        try:
            sock.sendall(json.dumps(request).encode() + b"\n")
            line = lines.readline()
            answer = json.loads(line or b"{}")
            if until_end and answer.get("ok"):
                lines.read()
        except ConnectionError:
            answer = {}
        except TimeoutError:
            raise NotRunning(
                f"the supervisor does not answer; see {log_of(settings)}"
            ) from None
    if not answer:
        raise NotRunning(f"the supervisor ended meanwhile; see {log_of(settings)}")
    if not answer.pop("ok"):
        raise SupervisorError(answer["message"], answer["exit_code"], answer["msgid"])
    return dict(answer)


def log_of(settings: Settings) -> Path:
    """The supervisor's log."""
    return settings.log_dir / "supervisor.log"


def _connect(settings: Settings) -> socket.socket:
    path = settings.supervisor_socket
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_PATIENCE)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        if isinstance(error, PermissionError):
            raise NotRunning(
                f"{path}: permission denied; only its user"
                + (f" and group {settings.group}" if settings.group else "")
                + " may command this instance"
            ) from None
        pid = lock.holder(settings.pid_file)
        if pid is not None:
            raise NotRunning(
                f"pid {pid} is starting or stopping just now; try again, or see "
                f"{log_of(settings)}"
            ) from None
        raise NotRunning(
            "archipelago is not running; 'archipelago start' starts it"
        ) from None
    return sock
