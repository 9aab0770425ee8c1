# SPDX-License-Identifier: Apache-2.0
"""The status document: what ``archipelago status --json`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from archipelago.peers.ports import PORTS
from archipelago.settings import ROLES, Settings
from archipelago.supervisor.process import State

if TYPE_CHECKING:
    from archipelago.supervisor.process import PeerProcess
    from xseg.statistics import PortStatistics

__all__ = ["lost_ports", "running", "stopped"]


def stopped(settings: Settings) -> dict[str, Any]:
    """Describe an instance without a supervisor."""
    return {
        "running": False,
        "pid": None,
        "uptime": 0.0,
        **_common(settings, None),
        "peers": [_peer(role, settings, "stopped") for role in ROLES],
    }


def lost_ports(process: PeerProcess, ports: Sequence[PortStatistics]) -> str:
    """Name the roles of a peer process that runs although their ports are not its own.

    Returns:
        The roles, for people; "" if all is well or the process is not running.
    """
    if process.state is not State.RUNNING:
        return ""
    own = {port.id for port in ports if port.owner_pid == process.pid}
    return ", ".join(role for role in process.roles if PORTS[role] not in own)


def running(
    settings: Settings,
    *,
    pid: int,
    uptime: float,
    engine: str | None,
    processes: Sequence[PeerProcess],
    ports: Sequence[PortStatistics],
) -> dict[str, Any]:
    """Describe a running instance from its processes and its ports' counters."""
    by_id = {port.id: port for port in ports if port.alive}
    peers = []
    for role in ROLES:
        process = next((p for p in processes if role in p.plan.roles), None)
        if process is None or role not in process.roles:
            peers.append(_peer(role, settings, "stopped"))
            continue
        # Without its port a peer serves nobody: the supervisor restarts it.
        lost = role in lost_ports(process, ports).split(", ")
        state = State.RESTARTING if lost else process.state
        peer = _peer(role, settings, state.value)
        peer["pid"] = process.pid
        peer["uptime"] = round(process.uptime, 3)
        peer["restarts"] = process.restarts
        port = by_id.get(PORTS[role])
        if port is not None:
            peer["ops"] = port.completed
            peer["errors"] = port.errors
            peer["queue_depth"] = port.queue_depth + max(
                0, port.accepted - port.completed
            )
        peers.append(peer)
    return {
        "running": True,
        "pid": pid,
        "uptime": round(uptime, 3),
        **_common(settings, engine),
        "peers": peers,
    }


def _common(settings: Settings, engine: str | None) -> dict[str, Any]:
    chosen = engine or settings.engine
    notes = list(settings.notes)
    if engine == "threads" and settings.engine == "auto":
        notes.append(
            "files are read and written by a thread pool: io_uring is missing, because "
            "this build has no liburing or because this system forbids it"
        )
    home = settings.locations.home
    addresses = [str(settings.nbd_socket)]
    if settings.nbd.listen:
        addresses.append(_tcp(settings.nbd.listen, settings.nbd.port))
    return {
        "placement": settings.placement,
        "engine": chosen,
        "backend": settings.backend,
        "home": str(home) if home is not None else None,
        "segment": settings.segment_name,
        "nbd": addresses,
        "notes": notes,
    }


def _tcp(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _peer(role: str, settings: Settings, state: str) -> dict[str, Any]:
    return {
        "name": role,
        "state": state,
        "pid": None,
        "placement": settings.placement,
        "uptime": 0.0,
        "ops": 0,
        "errors": 0,
        "queue_depth": 0,
        "restarts": 0,
    }
