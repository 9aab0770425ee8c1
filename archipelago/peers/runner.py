# SPDX-License-Identifier: Apache-2.0
"""The roles of one peer process, from start to orderly end.

Two threads: the reactor's, which runs the native peers without the interpreter, and
the main one, which waits for a signal, the supervisor's death, or the reactor's end.
A process with the mapperd role also runs the control half, on threads of its own.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archipelago.control import ControlService
from archipelago.peers.control import ControlHalf
from archipelago.peers.order import await_dependents, await_desertion
from xseg._native import Native, default_engine
from xseg.constants import Role

__all__ = ["PeerConfig", "PeerRunner"]

log = logging.getLogger(__name__)

_ROLES = {
    "blockerb": Role.BLOCKERB,
    "blockerm": Role.BLOCKERM,
    "mapperd": Role.MAPPERD,
    "vlmcd": Role.VLMCD,
}


@dataclass(frozen=True)
class PeerConfig:
    """What the supervisor tells a peer process; `plan.process_config` writes it."""

    segment: str
    roles: list[str]
    backend: str
    data_path: str
    maps_path: str
    engine: str
    direct: bool
    io_timeout: float
    listen_fds: list[int]
    marks_fd: int
    supervisor_pid: int
    nonce: str
    log_level: int
    lease_ttl: float
    instance_file: str
    block_size: int
    umask: int
    attach_fd: int = -1

    @property
    def native_roles(self) -> Role:
        """The roles as bits; vlmcd brings the endpoints with it."""
        bits = Role(0)
        for name in self.roles:
            bits |= _ROLES[name]
        if Role.VLMCD in bits:
            bits |= Role.NBD
            if self.attach_fd >= 0:
                bits |= Role.FUSE
        return bits


class PeerRunner:
    """Runs the configured roles.

    Args:
        config: from the supervisor.
    """

    def __init__(self, config: PeerConfig) -> None:
        self._config = config
        self._native: Native | None = None
        self._error: BaseException | None = None
        self._created = threading.Event()
        self._reactor = threading.Thread(target=self._run_native, name="reactor")
        self._control: ControlHalf | None = None
        # The reactor's end, as something that can be waited for with descriptors.
        self._ended_fd, self._ended_write_fd = os.pipe()

    def run(self, ready: Callable[[dict[str, Any]], None], supervisor_fd: int) -> int:
        """Serve until told to stop.

        Args:
            ready: called once everything serves.
            supervisor_fd: readable (at its end) when the supervisor is gone.

        Returns:
            Exit status: 0 after an orderly stop.

        Raises:
            ArchipelagoError, OSError: it could not start.
        """
        wake_fd = _catch_signals()
        threading.Thread(
            target=self._end_when_deserted, args=(supervisor_fd,), daemon=True
        ).start()
        self._reactor.start()
        self._created.wait()
        failure = self._error
        if failure is not None:
            self._reactor.join()
            raise failure
        try:
            if "mapperd" in self._config.roles:
                self._control = ControlHalf(
                    self._make_control, patient="blockerm" not in self._config.roles
                )
                self._control.start()
            ready({"engine": self._engine()})
            if supervisor_fd in _wait_any(wake_fd, supervisor_fd, self._ended_fd):
                log.warning("the supervisor is gone: stopping")
                await_dependents(self._config.segment, self._config.roles)
        finally:
            self._stop()
        failure = self._error
        if failure is not None:
            log.error("the reactor failed: %s", failure)
        return 0 if failure is None else 1

    def _end_when_deserted(self, supervisor_fd: int) -> None:
        """End when neither the supervisor is there nor a peer that this one needs.

        Nothing can be started, flushed or given back without that one: it is as if we
        were killed.
        """
        _wait_any(supervisor_fd)
        if await_desertion(self._config.segment, self._config.roles):
            log.warning("a peer that this one needs is gone: ending as it is")
            os._exit(1)

    def _engine(self) -> str:
        chosen = self._config.engine
        return default_engine() if chosen == "auto" else chosen

    def _run_native(self) -> None:
        """The reactor thread: makes the peers, serves, takes them down."""
        config = self._config
        try:
            native = Native(
                config.segment,
                config.native_roles,
                backend=config.backend,
                data_path=config.data_path,
                maps_path=config.maps_path,
                engine=config.engine,
                direct=config.direct,
                io_timeout=config.io_timeout,
                listen_fds=config.listen_fds,
                attach_fd=config.attach_fd,
                marks_fd=config.marks_fd,
                log_level=config.log_level,
            )
            self._native = native
            self._created.set()
            native.run()
            native.close()
        except BaseException as error:  # handed to the main thread
            self._error = error
        finally:
            self._created.set()
            os.close(self._ended_write_fd)

    def _make_control(self) -> ControlService:
        config = self._config
        return ControlService(
            config.segment,
            instance_file=Path(config.instance_file),
            lease_ttl=config.lease_ttl,
            block_size=config.block_size,
            holder_pid=config.supervisor_pid,
            nonce=bytes.fromhex(config.nonce),
        )

    def _stop(self) -> None:
        """Stop what serves volumes before what it needs.

        The composer closes its volumes through the control half, and that gives its
        leases back through the blockers: so they end in this order.
        """
        try:
            if self._control is not None:
                if self._native is not None:
                    self._native.retire()
                self._control.stop()
        finally:
            if self._native is not None:
                self._native.stop()
            self._reactor.join()


def _catch_signals() -> int:
    """Turn SIGTERM and SIGINT into bytes on a descriptor."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reading


def _wait_any(*fds: int) -> set[int]:
    """Wait until something can be read; from which of them."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return {fd for fd, _ in poller.poll()}
