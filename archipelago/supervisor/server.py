# SPDX-License-Identifier: Apache-2.0
"""The supervisor's end of its control sockets.

Each line is a JSON object with `command`, and each gets a line in answer:
``{"ok": true, ...}``, or ``{"ok": false, "msgid", "message", "exit_code"}``.  The
permissions of the socket in the run directory say which users may command; on the
abstract one (`archipelago.supervisor.address`) the kernel names the client's user.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
from typing import Any

from archipelago.errors import ArchipelagoError, NotRunning, UsageError
from archipelago.supervisor import address
from archipelago.supervisor.core import Supervisor
from archipelago.supervisor.ground import own_socket

__all__ = ["ControlServer"]

log = logging.getLogger(__name__)

#: struct ucred: pid, uid, gid.
_UCRED = struct.Struct("=iII")
#: Longest request line [bytes].
_LINE_MAX = 1 << 16


class ControlServer:
    """Serves one supervisor's control socket."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._path = supervisor.settings.supervisor_socket
        self._servers: list[asyncio.AbstractServer] = []
        self._bound = False  # the path is ours to remove
        self._connections: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen.  The caller holds the pid lock, so an old socket is a dead one's.

        Raises:
            AlreadyRunning: a supervisor lives whose pid file was removed.
        """
        settings = self._supervisor.settings
        named = address.listen(settings.locations)
        if named is not None:
            self._servers.append(
                await asyncio.start_unix_server(
                    self._serve_checked, sock=named, limit=_LINE_MAX
                )
            )
        self._path.unlink(missing_ok=True)
        self._servers.append(
            await asyncio.start_unix_server(
                self._serve, str(self._path), limit=_LINE_MAX
            )
        )
        self._bound = True
        own_socket(self._path, settings)

    def unlink(self) -> None:
        """Take no new connections; those there are stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._bound:
            self._bound = False
            # A file system that has gone read-only keeps it; no process listens there.
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def disconnect(self) -> None:
        """End the connections: to a client that stopped us it says that all is done."""
        for writer in list(self._connections):
            writer.close()

    async def _serve_checked(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection to the abstract socket, which has no permissions."""
        gid = self._supervisor.settings.gid
        if not address.may_command(writer.get_extra_info("socket"), gid):
            refused = NotRunning("permission denied: another user's instance")
            with contextlib.suppress(ConnectionError):
                await _send(writer, _failure(refused))
            writer.close()
            return
        await self._serve(reader, writer)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._connections.add(writer)
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    await _send(writer, _failure(UsageError("the request is too long")))
                    return
                if not line:
                    return
                command, answer = await self._answer(line, _uid_of(writer))
                await _send(writer, answer)
                if command == "stop" and answer["ok"]:
                    self._supervisor.ended.set()
                    await reader.read()  # hold the line until `disconnect`
                    return
        except (ConnectionError, asyncio.CancelledError):
            pass  # they went away, or the loop ends with this process
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, line: bytes, uid: int) -> tuple[object, dict[str, Any]]:
        """Obey one request; also says which command ended the whole instance."""
        try:
            try:
                request = json.loads(line)
            except ValueError:
                raise UsageError("the request is not JSON") from None
            if not isinstance(request, dict):
                raise UsageError("the request is not an object")
            command = request.get("command")
            if command not in ("status", "settings"):
                log.info("command: %s", request)
            answer = await self._supervisor.obey(request, uid)
        except ArchipelagoError as error:
            return None, _failure(error)
        except Exception as error:
            log.exception("a command failed")
            return None, _failure(ArchipelagoError(f"{type(error).__name__}: {error}"))
        ending = command if request.get("peer") is None else None
        return ending, {"ok": True, **answer}


def _uid_of(writer: asyncio.StreamWriter) -> int:
    """The user at the other end."""
    sock: socket.socket = writer.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(raw)[1]
    return uid


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


def _failure(error: ArchipelagoError) -> dict[str, Any]:
    return {
        "ok": False,
        "msgid": error.msgid,
        "message": error.message,
        "exit_code": error.exit_code,
    }
