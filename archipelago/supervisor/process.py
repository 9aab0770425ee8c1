# SPDX-License-Identifier: Apache-2.0
"""One peer process: start it, wait until it is ready, keep it alive, stop it.

Runs in the supervisor's event loop.  The child gets its configuration as one JSON line
on standard input, which then stays open: its end tells the child that the supervisor
is gone.  The child says on an inherited pipe that it is ready, or why not.

Invariants: at most one child at a time; `state` is what people are told; a child that
ends without having been asked to is started again, after `reap` gave back what it held.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archipelago.supervisor.ground import StartError
from archipelago.supervisor.plan import ProcessPlan

log = logging.getLogger(__name__)

#: Pauses before the restarts of a peer that keeps dying [s]; the last one repeats.
BACKOFF = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
#: A child that lived this long died of something new: the pauses start over [s].
SETTLED = 30.0
READY_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0


class State(enum.Enum):
    """What a peer process is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"


class PeerProcess:
    """A peer process and its restarts.

    Args:
        plan: name and roles.
        configure: makes the child's configuration for the roles it is to have, and
            the descriptors to pass on.
        reap: reclaims what dead processes held in the segment.
        log_file: where the child's standard error goes, appended.
    """

    def __init__(
        self,
        plan: ProcessPlan,
        configure: Callable[[tuple[str, ...]], tuple[dict[str, Any], list[int]]],
        reap: Callable[[], None],
        log_file: Path,
    ) -> None:
        self.plan = plan
        self.roles = plan.roles
        self.state = State.STOPPED
        self.restarts = 0
        self.engine: str | None = None
        self._configure = configure
        self._reap = reap
        self._log_file = log_file
        self._child: asyncio.subprocess.Process | None = None
        self._started = 0.0
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Pid of the living child."""
        return self._child.pid if self._child is not None else None

    @property
    def uptime(self) -> float:
        """Time since the child became ready [s]; 0 if none is."""
        running = self.state is State.RUNNING
        return time.monotonic() - self._started if running else 0.0

    async def start(self, roles: tuple[str, ...] | None = None) -> None:
        """Start the child and wait until it serves.

        Raises:
            StartError: it ended, or said why it cannot; nothing is left running.
        """
        if roles is not None:
            self.roles = roles
        self.state = State.STARTING
        try:
            await self._spawn()
        except BaseException:
            self.state = State.STOPPED
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop the child in good order, or in any after a while; then stay stopped."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        if self._child is not None:
            self.state = State.STOPPING
            await self._end(self._child)
            self._child = None
            self._reap()
        self.state = State.STOPPED

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        _signal(child.terminate)
        try:
            await asyncio.wait_for(child.wait(), STOP_TIMEOUT)
        except asyncio.TimeoutError:
            log.error(
                "%s (pid %d) does not stop: killed; see %s",
                self.plan.name,
                child.pid,
                self._log_file,
            )
            _signal(child.kill)
            await child.wait()
        if child.stdin is not None:
            child.stdin.close()

    async def _spawn(self) -> None:
        config, fds = self._configure(self.roles)
        reader, transport, ready_fd = await _ready_pipe()
        errors = os.open(
            self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640
        )
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "archipelago.peers",
                f"--ready-fd={ready_fd}",
                *self.roles,
                stdin=asyncio.subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                pass_fds=[ready_fd, *fds],
                start_new_session=True,
            )
        finally:
            os.close(ready_fd)
            os.close(errors)
        self._child = child
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(config).encode() + b"\n")
            answer = await asyncio.wait_for(reader.readline(), READY_TIMEOUT)
            self.engine = self._check_ready(answer)
        except asyncio.TimeoutError:
            await self._abandon(child)
            raise StartError(
                f"{self.plan.name} is not ready after {READY_TIMEOUT:.0f} seconds; see "
                f"{self._log_file}"
            ) from None
        except BaseException:
            await self._abandon(child)
            raise
        finally:
            transport.close()
        self._started = time.monotonic()
        self.state = State.RUNNING
        log.info("%s ready, pid %d", self.plan.name, child.pid)

    def _check_ready(self, line: bytes) -> str | None:
        if not line:
            raise StartError(
                f"{self.plan.name} ended before it was ready; see {self._log_file}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise StartError(f"{self.plan.name}: {answer['error']}")
        engine = answer.get("engine")
        return str(engine) if engine else None

    async def _abandon(self, child: asyncio.subprocess.Process) -> None:
        _signal(child.kill)
        await child.wait()
        self._child = None
        self._reap()

    async def _watch(self) -> None:
        """Start the child again whenever it ends."""
        failures = 0
        while True:
            assert self._child is not None
            status = await self._child.wait()
            self._child = None
            lived = self.uptime
            self.state = State.RESTARTING
            log.error("%s ended (%s) after %.1f s", self.plan.name, _how(status), lived)
            self._reap()
            if lived >= SETTLED:
                failures = 0
            failures = await self._revive(failures)

    async def _revive(self, failures: int) -> int:
        while True:
            await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
            failures += 1
            self.restarts += 1
            try:
                await self._spawn()
                return failures
            except (StartError, OSError, ValueError) as error:
                self.state = State.RESTARTING
                log.error("%s does not start: %s", self.plan.name, error)


async def _ready_pipe() -> tuple[asyncio.StreamReader, asyncio.ReadTransport, int]:
    """A pipe: its reading end for the loop, its writing end for a child."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0)
    )
    return reader, transport, writing


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        send()


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
