# SPDX-License-Identifier: Apache-2.0
"""One child of the supervisor: an interpreter that becomes a peer when told what to be.

Starting the interpreter and importing takes most of the time, and needs no knowledge of
what the peer will do.  So a child has two steps: `prepare`, which can be done while
another still serves, and `begin`, which gives it its configuration.

The configuration is one JSON line on the child's standard input, which then stays open:
its end tells the child that the supervisor is gone.  On an inherited pipe the child
says with one line that it is prepared, and with another that it is ready, or why not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archipelago.supervisor.ground import StartError, child_environment

__all__ = ["ChildEnded", "PeerChild"]

log = logging.getLogger(__name__)

READY_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0


class ChildEnded(StartError):
    """The child ended without a word."""


class PeerChild:
    """A child process; made by `prepare`.

    Args:
        name: of the peer, for people.
        process: the child.
        answers: what it says on its pipe.
        pipe: the supervisor's end of that.
        log_file: where its standard error goes.
    """

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        answers: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
        log_file: Path,
    ) -> None:
        self._name = name
        self._process = process
        self._answers = answers
        self._pipe = pipe
        self._log_file = log_file

    @classmethod
    async def prepare(cls, name: str, log_file: Path, fds: list[int]) -> PeerChild:
        """Start an interpreter and wait until it has imported what a peer needs.

        Args:
            name: of the peer, as ps shows it.
            log_file: where its standard error goes, appended.
            fds: descriptors it inherits.

        Raises:
            StartError: it ended.
            OSError: it cannot be started.
        """
        answers, pipe, ready_fd = await _ready_pipe()
        errors = os.open(
            log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640
        )
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "archipelago.peers",
                f"--ready-fd={ready_fd}",
                name,
                stdin=asyncio.subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                pass_fds=[ready_fd, *fds],
                start_new_session=True,
                cwd="/",
                env=child_environment(),
            )
        except BaseException:
            pipe.close()
            raise
        finally:
            os.close(ready_fd)
            os.close(errors)
        child = cls(name, process, answers, pipe, log_file)
        try:
            await child._answer()
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    async def begin(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Tell it what to be, and wait until it serves.

        Returns:
            What it says of itself.

        Raises:
            ChildEnded: it was dead already, or died.
            StartError: it said why it cannot; it is dead.
        """
        try:
            stdin = self._process.stdin
            assert stdin is not None
            stdin.write(json.dumps(config).encode() + b"\n")
            return await self._answer()
        except BaseException:
            await self.kill()
            raise
        finally:
            self._pipe.close()

    async def _answer(self) -> dict[str, Any]:
        """The next line it says."""
        try:
            line = await asyncio.wait_for(self._answers.readline(), READY_TIMEOUT)
        except asyncio.TimeoutError:
            raise StartError(
                f"{self._name} is not ready after {READY_TIMEOUT:.0f} seconds; see "
                f"{self._log_file}"
            ) from None
        if not line:
            raise ChildEnded(
                f"{self._name} ended before it was ready; see {self._log_file}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise StartError(f"{self._name}: {answer['error']}", answer["exit_code"])
        return dict(answer)

    async def wait(self) -> int:
        """Wait for its end; its exit status, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End it in good order, or in any after a while."""
        self._signal_term()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except asyncio.TimeoutError:
            log.error(
                "%s (pid %d) does not stop: killed; see %s",
                self._name,
                self.pid,
                self._log_file,
            )
            await self.kill()
        self._close()

    async def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._close()

    def _signal_term(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def _close(self) -> None:
        self._pipe.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


async def _ready_pipe() -> tuple[asyncio.StreamReader, asyncio.ReadTransport, int]:
    """A pipe: its reading end for the loop, its writing end for a child."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0)
    )
    return reader, transport, writing
