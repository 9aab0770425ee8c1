# SPDX-License-Identifier: Apache-2.0
"""Which processes an instance has: placement turned into a list."""

from __future__ import annotations

import os
from dataclasses import dataclass

from archipelago.settings import ROLES, Settings

__all__ = ["NONCE_BYTES", "ProcessPlan", "plan_processes", "process_config"]

#: Length of the random number that names a run of an instance [bytes].
NONCE_BYTES = 16


@dataclass(frozen=True)
class ProcessPlan:
    """One process: what it is called, and which roles it has when all is well."""

    name: str
    roles: tuple[str, ...]


def plan_processes(settings: Settings) -> list[ProcessPlan]:
    """List the processes of a placement, in the order in which they start."""
    if settings.placement == "together":
        return [ProcessPlan("peers", ROLES)]
    return [ProcessPlan(role, (role,)) for role in ROLES]


def process_config(
    settings: Settings,
    roles: tuple[str, ...],
    listen_fds: list[int],
    marks_fd: int = -1,
    attach_fd: int = -1,
    nonce: bytes = bytes(NONCE_BYTES),
) -> dict[str, object]:
    """What a peer process is told on its standard input (`archipelago.peers`).

    Args:
        settings: of the instance.
        roles: that the process plays.
        listen_fds: where NBD clients come in.
        marks_fd: memory that outlives mapperd; -1: not for this process.
        attach_fd: the way to the process that mounts; -1: not for this process.
        nonce: names this run of the instance.
    """
    return {
        "segment": settings.segment_name,
        "roles": list(roles),
        "backend": settings.backend,
        "data_path": str(settings.data_path),
        "maps_path": str(settings.maps_path),
        "engine": settings.engine,
        "direct": settings.direct,
        "io_timeout": settings.io_timeout,
        "listen_fds": listen_fds,
        "marks_fd": marks_fd,
        "attach_fd": attach_fd,
        "supervisor_pid": os.getpid(),
        "nonce": nonce.hex(),
        "log_level": max(settings.log_level(role) for role in roles),
        "lease_ttl": settings.lease_ttl,
        "instance_file": str(settings.instance_file),
        "block_size": settings.block_size,
        "umask": 0o007 if settings.group else 0o077,
    }
