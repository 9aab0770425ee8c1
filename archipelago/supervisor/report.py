# SPDX-License-Identifier: Apache-2.0
"""What a supervisor tells of itself: status, and the settings in effect."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from archipelago.errors import ConfigError
from archipelago.peers.ports import PORTS
from archipelago.settings import ROLES, Settings, setting_keys
from archipelago.supervisor.process import State
from archipelago.supervisor.watchdog import HUNG_AFTER

if TYPE_CHECKING:
    from archipelago.supervisor.process import PeerProcess
    from xseg.statistics import PortStatistics

__all__ = [
    "PeerState",
    "lost_ports",
    "misconfigured",
    "running",
    "settings_in_effect",
    "stopped",
]


class PeerState(enum.Enum):
    """How a peer is, for people: what its process does, and whether it serves."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    #: Its process died or was ended, and the next one is starting.
    RESTARTING = "restarting"
    STOPPING = "stopping"
    #: Its process lives and has not answered for a while.
    HUNG = "hung"
    #: Its process lives and does not serve its port in the segment.
    UNBOUND = "unbound"


_STATES = {
    State.STOPPED: PeerState.STOPPED,
    State.STARTING: PeerState.STARTING,
    State.RUNNING: PeerState.RUNNING,
    State.RESTARTING: PeerState.RESTARTING,
    State.STOPPING: PeerState.STOPPING,
}


def settings_in_effect(settings: Settings) -> dict[str, Any]:
    """What ``archipelago config show --json`` prints."""
    where = settings.locations
    return {
        "settings": {
            key: {"value": _value(settings, key), "origin": settings.origins[key]}
            for key in setting_keys()
        },
        "paths": {
            "config_file": str(where.config_file),
            "legacy_file": str(where.legacy_file or ""),
            "segment": settings.segment_name,
            "supervisor_socket": str(settings.supervisor_socket),
            "pid_file": str(settings.pid_file),
            "instance_file": str(settings.instance_file),
        },
        "notes": list(settings.notes),
    }


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    if key == "nbd.socket":
        value = settings.nbd_socket
    return value if isinstance(value, (bool, int, float, type(None))) else str(value)


def stopped(settings: Settings) -> dict[str, Any]:
    """Describe an instance without a supervisor."""
    return {
        "running": False,
        "pid": None,
        "uptime": 0.0,
        **_common(settings, None),
        "peers": [_peer(role, settings.placement, "stopped") for role in ROLES],
    }


def misconfigured(error: ConfigError) -> dict[str, Any]:
    """Describe an instance that does not run, and would not start."""
    unknown = ("placement", "engine", "backend", "home", "segment")
    return {
        "running": False,
        "pid": None,
        "uptime": 0.0,
        **dict.fromkeys(unknown),
        "nbd": [],
        "notes": [f"it would not start: {error}"],
        "peers": [_peer(role, None, "stopped") for role in ROLES],
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
    silence: Callable[[str], float],
) -> dict[str, Any]:
    """Describe a running instance from its processes and its ports' counters.

    Args:
        settings: of the instance.
        pid: of its supervisor.
        uptime: of its supervisor [s].
        engine: how files are read; None if no peer has said so yet.
        processes: of its peers.
        ports: of its segment.
        silence: says how long a peer has not answered [s].
    """
    by_id = {port.id: port for port in ports if port.alive}
    peers = []
    for role in ROLES:
        process = next((p for p in processes if role in p.plan.roles), None)
        if process is None or role not in process.roles:
            peers.append(_peer(role, settings.placement, "stopped"))
            continue
        state = _STATES[process.state]
        if role in lost_ports(process, ports).split(", "):
            state = PeerState.UNBOUND  # the supervisor restarts it
        elif state is PeerState.RUNNING and silence(role) >= HUNG_AFTER:
            state = PeerState.HUNG
        peer = _peer(role, settings.placement, state.value)
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
    unbound = any(peer["state"] == PeerState.UNBOUND.value for peer in peers)
    return {
        "running": not unbound,
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


def _peer(role: str, placement: str | None, state: str) -> dict[str, Any]:
    return {
        "name": role,
        "state": state,
        "pid": None,
        "placement": placement,
        "uptime": 0.0,
        "ops": 0,
        "errors": 0,
        "queue_depth": 0,
        "restarts": 0,
    }
