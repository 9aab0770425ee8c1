# SPDX-License-Identifier: Apache-2.0
"""One peer process: start it, keep it alive, stop it.

Runs in the supervisor's event loop.  While a child serves, the next one waits prepared
(`PeerChild.prepare`), so that one that dies is replaced in the time its peers take to
start, whatever else keeps the processors busy.

Invariants: at most one child serves at a time; `state` is what people are told; a child
that ends without having been asked to is replaced, after `reap` gave back what it held.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archipelago.supervisor.child import ChildEnded, PeerChild
from archipelago.supervisor.ground import StartError
from archipelago.supervisor.plan import ProcessPlan

log = logging.getLogger(__name__)

#: Pauses before the restarts of a peer that keeps dying [s]; the last one repeats.
BACKOFF = (0.0, 0.0, 0.0, 0.1, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
#: A child that lived this long died of something new: the pauses start over [s].
SETTLED = 1.0
#: When to prepare the next child: clients come back first [s].
SPARE_DELAY = 0.5


class State(enum.Enum):
    """What a peer process is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"


#: What may follow: a start that fails ends stopped, a child that dies is replaced until
#: one serves or a command stops the process.
_NEXT = {
    State.STOPPED: {State.STARTING, State.RESTARTING},
    State.STARTING: {State.RUNNING, State.STOPPED},
    State.RUNNING: {State.RESTARTING, State.STOPPING},
    State.RESTARTING: {State.RUNNING, State.STOPPING, State.STOPPED},
    State.STOPPING: {State.STOPPED},
}


class PeerProcess:
    """A peer process and its restarts.

    Args:
        plan: name and roles.
        configure: makes the child's configuration for the roles it is to have, and
            the descriptors to pass on.
        reap: reclaims what dead processes held in the segment.
        served: called with the roles whenever a child serves.
        log_file: where the child's standard error goes, appended.
        note: records the pid of each child that is started.
    """

    def __init__(
        self,
        plan: ProcessPlan,
        configure: Callable[[tuple[str, ...]], tuple[dict[str, Any], list[int]]],
        reap: Callable[[], None],
        served: Callable[[tuple[str, ...]], None],
        log_file: Path,
        note: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self.plan = plan
        self.roles = plan.roles
        self._state = State.STOPPED
        self.restarts = 0
        self.engine: str | None = None
        self._configure = configure
        self._reap = reap
        self._served = served
        self._log_file = log_file
        self._note = note
        self._child: PeerChild | None = None
        self._spare: PeerChild | None = None
        self._started = 0.0
        self._watcher: asyncio.Task[None] | None = None
        self._preparer: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    def _enter(self, state: State) -> None:
        assert state is self._state or state in _NEXT[self._state], (
            f"{self.plan.name}: from {self._state} to {state}"
        )
        self._state = state

    @property
    def pid(self) -> int | None:
        """Pid of the child that serves, or starts to."""
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
        self._enter(State.STARTING)
        try:
            await self._spawn()
        except BaseException:
            self._enter(State.STOPPED)
            raise
        self._watcher = asyncio.create_task(self._watch())

    def revive(self, roles: tuple[str, ...]) -> None:
        """Bring a stopped process back as if its child had died: until it serves."""
        assert self.state is State.STOPPED
        self.roles = roles
        self._enter(State.RESTARTING)
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self, *, keep_spare: bool = False, kill: bool = False) -> None:
        """Stop the child in good order, or in any after a while; then stay stopped.

        Args:
            keep_spare: the prepared child will be needed at once.
            kill: there is nothing left for which good order would be of use.
        """
        await _cancel(self._watcher)
        self._watcher = None
        if not keep_spare:
            await self._drop_spare()
        if self._child is not None:
            self._enter(State.STOPPING)
            await (self._child.kill() if kill else self._child.stop())
            self._child = None
            self._reap()
        self._enter(State.STOPPED)

    async def replace(self, why: str) -> None:
        """End a child that is of no use any more; the next one takes its place."""
        if self._child is not None and self.state is State.RUNNING:
            log.error("%s (pid %s) %s: ended", self.plan.name, self.pid, why)
            await self._child.kill()

    async def renew_spare(self) -> None:
        """Prepare a child from the program as it is installed now.

        Raises:
            StartError, OSError: none can be prepared; what serves goes on.
        """
        await self._drop_spare()
        self._spare = await self._prepare()

    # The child that serves

    async def _spawn(self) -> None:
        config, _ = self._configure(self.roles)
        await _cancel(self._preparer)
        self._preparer = None
        try:
            answer = await self._begin(config)
        except BaseException:
            self._child = None
            self._reap()
            raise
        engine = answer.get("engine")
        self.engine = str(engine) if engine else None
        self._started = time.monotonic()
        self._enter(State.RUNNING)
        log.info("%s ready, pid %s", self.plan.name, self.pid)
        self._served(self.roles)
        self._preparer = asyncio.create_task(self._prepare_next())

    async def _begin(self, config: dict[str, Any]) -> dict[str, Any]:
        self._child, self._spare = self._spare, None
        if self._child is not None:
            try:
                return await self._child.begin(config)
            except ChildEnded:
                self._reap()  # it may have died before: a fresh one shows
        self._child = await self._prepare()
        return await self._child.begin(config)

    async def _watch(self) -> None:
        """Replace the child whenever it ends; at once, if there is none."""
        failures = 0 if self._child is not None else await self._revive(0)
        while True:
            assert self._child is not None
            status = await self._child.wait()
            lived = self.uptime
            self._child = None
            self._enter(State.RESTARTING)
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
                self._enter(State.RESTARTING)
                log.error("%s does not start: %s", self.plan.name, error)

    # The child that is prepared

    async def _prepare(self) -> PeerChild:
        # Whatever roles it will have, it has what it needs for all.
        _, fds = self._configure(self.plan.roles)
        child = await PeerChild.prepare(self.plan.name, self._log_file, fds)
        self._note(child.pid)
        return child

    async def _prepare_next(self) -> None:
        await asyncio.sleep(SPARE_DELAY)
        try:
            self._spare = await self._prepare()
        except (StartError, OSError, ValueError) as error:
            log.warning("%s: no child is prepared: %s", self.plan.name, error)

    async def _drop_spare(self) -> None:
        await _cancel(self._preparer)
        self._preparer = None
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.kill()


async def _cancel(task: asyncio.Task[None] | None) -> None:
    """End a task, and wait until it has."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
