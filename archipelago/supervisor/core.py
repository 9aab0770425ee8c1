# SPDX-License-Identifier: Apache-2.0
"""The supervisor itself: what it owns, and every command it obeys.

Runs on one event loop.  Commands that change something run one at a time; `status`
answers at any moment from the segment's counters and costs the peers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archipelago.errors import ArchipelagoError, NotRunning, UsageError, VolumeBusy
from archipelago.mapping import mappings
from archipelago.settings import ROLES, Settings, load_settings
from archipelago.supervisor import ground, openvolumes, report, store
from archipelago.supervisor.home import Home
from archipelago.supervisor.lock import PidLock
from archipelago.supervisor.mounts import Mounts
from archipelago.supervisor.plan import NONCE_BYTES, plan_processes, process_config
from archipelago.supervisor.process import PeerProcess, State
from archipelago.supervisor.record import Record
from archipelago.supervisor.watchdog import Watchdog
from xseg import ReapResult, Segment
from xseg.errors import XsegError

log = logging.getLogger(__name__)

#: How often to look for clients that died and peers that lost their ports [s].
SEGMENT_LOOK = 1.0
_NOTHING_REAPED = ReapResult(0, 0, 0)

#: Settings that a running supervisor cannot change: they shape what it owns.
_FIXED = (
    "placement",
    "backend",
    "data_path",
    "maps_path",
    "segment",
    "nbd",
    "group",
    "run_dir",
    "log_dir",
    "state_dir",
)


class Supervisor:
    """One instance, from its segment to its last peer.

    Args:
        settings: of the instance.
        overrides: what the command line set, to be kept over a restart.
        lock: the right to be its supervisor.
    """

    def __init__(
        self, settings: Settings, overrides: Mapping[str, Any], lock: PidLock
    ) -> None:
        self.settings = settings
        self.started = time.monotonic()
        self.ended = asyncio.Event()
        self._overrides = dict(overrides)
        self._lock = lock
        self._busy = asyncio.Lock()
        self._home = Home()
        self._segment: Segment | None = None
        self._segment_fd: int | None = None  # shows that its supervisor lives
        self._segment_watcher: asyncio.Task[None] | None = None
        self._watchdog: Watchdog | None = None
        self._sockets: list[socket.socket] = []
        self._marks_fd = -1
        self._record = Record(settings.run_dir / "peers")
        self._mounts = Mounts(settings.run_dir, settings.gid)
        #: Names this run: leases and marks of its peers outlive them, and end with it.
        self._nonce = os.urandom(NONCE_BYTES)
        self.processes: list[PeerProcess] = []

    # Start and stop

    async def start(self) -> None:
        """Bring everything up; on failure everything is taken down again.

        Raises:
            ArchipelagoError: what could not be done.
        """
        async with self._busy:
            try:
                store.establish(self.settings)
                self._home = Home.of(self.settings)
                self._make_segment()
                self._sockets = ground.listen(self.settings)
                self._marks_fd = ground.make_mark_log()
                self._mounts.open()
                self.processes = [
                    PeerProcess(
                        plan,
                        self._configure,
                        self._reap,
                        self._served,
                        self.settings.log_dir / f"{plan.name}.log",
                        self._record.note,
                    )
                    for plan in plan_processes(self.settings)
                ]
                for process in self.processes:
                    await process.start()
                self._segment_watcher = asyncio.create_task(self._watch_segment())
                self._start_watchdog()
            except BaseException:
                await self._take_down()
                raise

    async def stop(self, *, force: bool = False) -> None:
        """Stop all peers and remove segment and sockets.

        Raises:
            VolumeBusy: volumes are open, and not forced.
        """
        async with self._busy:
            if not force:
                await self._refuse_if_open("stop")
            if self._segment is not None and not self._home.gone():
                await self._complete()
            await self._take_down()

    async def _complete(self) -> None:
        """Start what was stopped by hand: all are needed for an end in good order.

        What was answered is flushed then, and leases are given back.
        """
        for role in ROLES:
            try:
                await self._start_role(role)
            except (ArchipelagoError, OSError) as error:
                log.warning("%s does not start for the stop: %s", role, error)

    async def _take_down(self) -> None:
        await self._end_watchdog()
        if self._segment_watcher is not None:
            self._segment_watcher.cancel()
            self._segment_watcher = None
        kill = self._home.gone()
        self._home.close()
        # What is mapped is flushed to volumes that are still served.
        await asyncio.to_thread(self._mounts.close)
        for process in reversed(self.processes):
            await process.stop(kill=kill)
        self._record.forget()
        for sock in self._sockets:
            sock.close()
        if self._sockets:
            # A file system that has gone read-only keeps it; no process listens there.
            with contextlib.suppress(OSError):
                self.settings.nbd_socket.unlink(missing_ok=True)
        self._sockets = []
        if self._marks_fd >= 0:
            os.close(self._marks_fd)
            self._marks_fd = -1
        if self._segment is not None:
            self._segment.close()
            self._segment = None
            try:
                Segment.destroy(self.settings.segment_name)
            except XsegError as error:
                log.warning("segment %s: %s", self.settings.segment_name, error)
        self._let_segment_go()

    # One peer

    async def start_peer(self, role: str) -> None:
        """Start a peer that was stopped; nothing happens if it runs."""
        async with self._busy:
            await self._start_role(role)

    async def _start_role(self, role: str) -> None:
        process = self._process_of(role)
        if process.state is State.STOPPED:
            await process.start((role,))
        elif role not in process.roles:
            await self._reshape(process, {*process.roles, role})

    async def stop_peer(self, role: str, *, force: bool = False) -> None:
        """Stop one peer and leave it stopped.

        In one process with others, that process is started again without it.

        Raises:
            NotRunning: it does not run.
            VolumeBusy: volumes are open, and not forced.
        """
        async with self._busy:
            process = self._process_of(role)
            if process.state is State.STOPPED or role not in process.roles:
                raise NotRunning(f"{role} is not running")
            if not force:
                await self._refuse_if_open(f"stop {role}")
            rest = set(process.roles) - {role}
            if rest:
                await self._reshape(process, rest)
            else:
                await process.stop()

    async def restart(
        self, role: str | None, overrides: Mapping[str, Any]
    ) -> list[str]:
        """Restart one peer or all, with settings read anew.

        Clients keep their sockets and the segment.  Returns the names of settings
        that changed and that a running supervisor cannot change; then nothing was
        done.

        Raises:
            ArchipelagoError, OSError: one does not start.  What ran before is started
                again like a peer that died, with the roles and settings it had.
        """
        async with self._busy:
            merged = {**self._overrides, **overrides}
            fresh = load_settings(self.settings.locations.home, **merged)
            changed = [
                name
                for name in _FIXED
                if getattr(fresh, name) != getattr(self.settings, name)
            ]
            if changed:
                return changed
            ground.make_directories(fresh)
            findings = self._segment.check() if self._segment is not None else []
            role = None if findings else role  # nothing outlives an unsound segment
            chosen = [self._process_of(role)] if role else self.processes
            # Who comes next is prepared while the present one still serves.
            await asyncio.gather(*(process.renew_spare() for process in chosen))
            before = self.settings, self._overrides
            ran = {p: p.roles for p in chosen if p.state is not State.STOPPED}
            self.settings, self._overrides = fresh, merged
            try:
                for process in reversed(chosen):
                    await process.stop(keep_spare=True, kill=bool(findings))
                if findings:
                    await self._replace_segment(findings)
                for process in chosen:
                    roles = process.plan.roles if role is None else process.roles
                    await process.start(_ordered({*roles, role} if role else roles))
            except Exception as error:
                log.error("restart: %s; what ran is brought back as it was", error)
                self.settings, self._overrides = before
                await self._bring_back(chosen, ran, anew=fresh != before[0])
                raise
            return []

    async def _bring_back(
        self,
        chosen: list[PeerProcess],
        ran: Mapping[PeerProcess, tuple[str, ...]],
        *,
        anew: bool,
    ) -> None:
        """After a restart that failed, leave each process to its watcher as it was.

        Args:
            chosen: the processes that were to restart.
            ran: those of them that ran, and their roles.
            anew: what was started already has settings that are no longer in effect.
        """
        for process in reversed(chosen):
            same = process in ran and process.roles == ran[process]
            if process.state is not State.RUNNING or anew or not same:
                await process.stop(keep_spare=process in ran)
        for process, roles in ran.items():
            if process.state is State.STOPPED:
                process.revive(roles)

    async def _reshape(self, process: PeerProcess, roles: set[str]) -> None:
        """Start a process again with other roles; on failure, with those it had."""
        before = process.roles
        await process.stop(keep_spare=True)
        try:
            await process.start(_ordered(roles))
        except Exception:
            process.revive(before)
            raise

    def _process_of(self, role: str) -> PeerProcess:
        if role not in ROLES:
            raise UsageError(f"no such peer: {role}; peers are {', '.join(ROLES)}")
        return next(p for p in self.processes if role in p.plan.roles)

    # What processes need from here

    def _configure(self, roles: tuple[str, ...]) -> tuple[dict[str, Any], list[int]]:
        fds = [s.fileno() for s in self._sockets] if "vlmcd" in roles else []
        marks_fd = self._marks_fd if "mapperd" in roles else -1
        attach_fd = self._mounts.attach_fd if "vlmcd" in roles else -1
        config = process_config(
            self.settings, roles, fds, marks_fd, attach_fd, nonce=self._nonce
        )
        return config, [*fds, *(fd for fd in (marks_fd, attach_fd) if fd >= 0)]

    def _served(self, roles: tuple[str, ...]) -> None:
        if "vlmcd" in roles:
            self._mounts.hand_over_all()

    def _reap(self) -> None:
        if self._segment is None:
            return
        try:
            result = self._segment.reap()
        except XsegError as error:
            log.error("reaping the segment: %s", error)
        else:
            if result != _NOTHING_REAPED:
                log.info("reaped: %s", result)

    async def _watch_segment(self) -> None:
        """Let go what dead programs held, and mend a peer whose ports are gone.

        A peer that died is noticed at once, by its exit; a client is no child of the
        supervisor, and its volumes would stay open.  A peer that runs without its ports
        is of no use: it is started again.
        """
        unsound = False
        while self._segment is not None:
            await asyncio.sleep(SEGMENT_LOOK)
            self._reap()
            if self._home.gone() and not self.ended.is_set():
                log.error("the directories of this instance were deleted: it ends")
                self.ended.set()
            if self._busy.locked():
                continue  # a command is starting or stopping peers
            # Twice: what one look finds may be a peer's half-done step.
            findings = self._segment.check()
            if findings and unsound:
                await self._heal(findings)
            unsound = bool(findings) and not unsound
            ports = self._segment.ports()
            for process in self.processes:
                lost = report.lost_ports(process, ports)
                if lost:
                    await process.replace(f"no longer serves the ports of {lost}")

    async def _replace(self, role: str, why: str) -> None:
        """End the process of a peer that hangs; it is started again."""
        await self._process_of(role).replace(why)

    # Mounts

    async def _mount(self, path: str | None) -> Path:
        async with self._busy:
            return await asyncio.to_thread(self._mounts.mount, path)

    async def _unmount(self, path: str, *, force: bool) -> None:
        async with self._busy:
            await asyncio.to_thread(self._mounts.unmount, path, force=force)

    async def _heal(self, findings: list[str]) -> None:
        """Give the instance a new segment, and start what ran."""
        async with self._busy:
            ran = {p: p.roles for p in self.processes if p.state is not State.STOPPED}
            for process in reversed(self.processes):
                await process.stop(keep_spare=True, kill=True)
            await self._replace_segment(findings)
            for process, roles in ran.items():
                process.revive(roles)

    async def _replace_segment(self, findings: list[str]) -> None:
        """Make the segment anew, while no peer runs; clients find it by its name."""
        shown = "; ".join(findings[:3]) + ("; ..." if len(findings) > 3 else "")
        log.error("the segment is unsound (%s): it is made anew", shown)
        self._reap()  # its clients learn that their requests have ended
        await self._end_watchdog()
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        Segment.destroy(self.settings.segment_name)
        self._let_segment_go()
        self._make_segment()
        self._start_watchdog()

    def _make_segment(self) -> None:
        """Make the segment, and hold it so that no other supervisor removes it."""
        self._segment = ground.create_segment(self.settings, self._record)
        self._segment_fd = ground.hold_segment(self.settings.segment_name)

    def _let_segment_go(self) -> None:
        if self._segment_fd is not None:
            os.close(self._segment_fd)
            self._segment_fd = None

    def _start_watchdog(self) -> None:
        assert self._segment is not None
        self._watchdog = Watchdog(
            self._segment, lambda: self.settings.watchdog, self._replace
        )

    async def _end_watchdog(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            await watchdog.close()

    # Reports

    async def _refuse_if_open(self, what: str) -> None:
        process = self._process_of("vlmcd")
        if process.state is not State.RUNNING or "vlmcd" not in process.roles:
            return
        names = await asyncio.to_thread(
            openvolumes.list_open, self.settings.segment_name
        )
        devices = {m.volume: m.device for m in mappings(self._mounts.own)}
        names = [
            f"{name} (mapped as {devices[name]})" if name in devices else name
            for name in names
        ]
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise VolumeBusy(
                f"cannot {what}: {len(names)} open volume{'s' * (len(names) > 1)}: "
                f"{shown}; close them, or use -f to cut their users off"
            )

    def status(self) -> dict[str, Any]:
        """Everything ``archipelago status --json`` shows."""
        ports = self._segment.ports() if self._segment is not None else []
        engines = [p.engine for p in self.processes if p.engine]
        status = report.running(
            self.settings,
            pid=os.getpid(),
            uptime=time.monotonic() - self.started,
            engine=engines[0] if engines else None,
            processes=self.processes,
            ports=ports,
            silence=self._watchdog.silence if self._watchdog else lambda role: 0.0,
        )
        if self._sockets and not self.settings.nbd_socket.exists():
            status["notes"].append(
                f"the socket {self.settings.nbd_socket} was removed: NBD clients "
                "cannot connect until 'archipelago stop' and 'archipelago start'"
            )
        return status

    async def obey(self, request: Mapping[str, Any], uid: int) -> dict[str, Any]:
        """Carry out one command from the control socket.

        Args:
            request: the command and its members.
            uid: of the user that asks.

        Raises:
            ArchipelagoError: why not.
        """
        command, peer = request.get("command"), request.get("peer")
        force = request.get("force") is True
        if peer is not None and not isinstance(peer, str):
            raise UsageError("peer is not a string")
        if command == "status":
            return self.status()
        if command == "settings":
            return report.settings_in_effect(self.settings)
        if command == "mount":
            path = request.get("path")
            if path is not None and not isinstance(path, str):
                raise UsageError("path is not a string")
            if uid not in (0, os.geteuid()):
                raise UsageError(
                    "only root and the instance's own user may mount volumes: the "
                    "mount is made with the instance's rights"
                )
            return {"path": str(await self._mount(path))}
        if command == "unmount":
            await self._unmount(str(request.get("path")), force=force)
        elif command == "start" and peer is not None:
            await self.start_peer(peer)
        elif command == "stop" and peer is not None:
            await self.stop_peer(peer, force=force)
        elif command == "stop":
            await self.stop(force=force)
        elif command == "restart":
            overrides = request.get("overrides")
            if not isinstance(overrides, dict):
                raise UsageError("overrides is not an object")
            return {"changed": await self.restart(peer, overrides)}
        else:
            raise UsageError(f"unknown command {command!r}")
        return {}


def _ordered(roles: set[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(role for role in ROLES if role in roles)
