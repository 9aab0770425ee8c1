# SPDX-License-Identifier: Apache-2.0
"""Restarts in which a peer does not start: what ran comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from archipelago.errors import ArchipelagoError
from archipelago.settings import ROLES, load_settings
from archipelago.supervisor import ground
from archipelago.supervisor.child import PeerChild
from archipelago.supervisor.core import Supervisor
from archipelago.supervisor.lock import PidLock
from tests.helpers.instance import Instance
from tests.unit.supervisor.test_life import PATIENCE, peers, serves, wait_until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("placement", ["together", "apart"])
def test_a_store_that_is_mended_is_served_again(
    make_instance: Callable[..., Instance], placement: str
) -> None:
    instance = make_instance(placement=placement)
    instance.start()
    before = instance.status()
    mark = instance.home / "store" / "maps" / "format"
    right = mark.read_bytes()
    mark.write_bytes(b"something else\n")
    failed = instance.command("archipelago", "restart", "--engine", "threads")
    assert failed.returncode not in (0, 8)
    assert f"{mark.parent}" in failed.stderr
    assert failed.stderr.count("\n") == 1
    states = {name: peer["state"] for name, peer in peers(instance).items()}
    assert states["blockerm"] in ("starting", "restarting")
    assert "stopped" not in states.values()
    mark.write_bytes(right)
    wait_until(
        lambda: all(p["state"] == "running" for p in peers(instance).values()),
        "all peers running again",
    )
    after = instance.status()
    assert after["pid"] == before["pid"]
    assert after["engine"] == before["engine"]
    serves(instance, "v")
    instance.archipelago("restart")
    assert all(p["state"] == "running" for p in peers(instance).values())


# The supervisor in this process, so that the very moment of a death can be chosen.


@pytest.fixture
def home() -> Iterator[Path]:
    mask = os.umask(0o077)
    with tempfile.TemporaryDirectory(prefix="arch-", dir="/tmp") as home:
        yield Path(home)
    os.umask(mask)


class Killer:
    """Kills children with the configuration on its way to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.victims = 0
        self.killed: list[int] = []
        begin = PeerChild.begin

        async def kill_and_begin(
            child: PeerChild, config: Mapping[str, Any]
        ) -> dict[str, Any]:
            if self.victims:
                self.victims -= 1
                os.kill(child.pid, signal.SIGKILL)
                self.killed.append(child.pid)
            return await begin(child, config)

        monkeypatch.setattr(PeerChild, "begin", kill_and_begin)


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    return Killer(monkeypatch)


def live(
    home: Path, placement: str, body: Callable[[Supervisor], Coroutine[Any, Any, None]]
) -> None:
    """Run a supervisor around `body`."""
    settings = load_settings(home, placement=placement)
    ground.prepare(settings)
    lock = PidLock.acquire(settings.pid_file)

    async def run() -> None:
        supervisor = Supervisor(settings, {"placement": placement}, lock)
        await supervisor.start()
        try:
            await body(supervisor)
        finally:
            await supervisor.stop(force=True)

    try:
        asyncio.run(run())
    finally:
        lock.release()


async def until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.01)


def states(supervisor: Supervisor) -> dict[str, str]:
    return {peer["name"]: peer["state"] for peer in supervisor.status()["peers"]}


@pytest.mark.parametrize("placement", ["together", "apart"])
def test_children_killed_while_restart_starts_them(
    home: Path, killer: Killer, placement: str
) -> None:
    async def body(supervisor: Supervisor) -> None:
        # One that was prepared and the fresh one after it, and once more in revival.
        killer.victims = 3
        with pytest.raises(ArchipelagoError, match="ended before it was ready"):
            await supervisor.restart(None, {})
        await until(
            lambda: set(states(supervisor).values()) == {"running"}, "all running"
        )
        assert len(killer.killed) == 3
        await supervisor.restart(None, {})
        assert set(states(supervisor).values()) == {"running"}

    live(home, placement, body)


def test_what_was_stopped_by_hand_stays_so(home: Path, killer: Killer) -> None:
    async def body(supervisor: Supervisor) -> None:
        await supervisor.stop_peer("blockerb", force=True)
        before = supervisor.settings
        ran = {role: "stopped" if role == "blockerb" else "running" for role in ROLES}
        # blockerb starts in full, blockerm does not: both are as they were.
        blockerm = supervisor.processes[ROLES.index("blockerm")]
        start = blockerm.start

        async def start_later(roles: tuple[str, ...] | None = None) -> None:
            killer.victims = 2
            await start(roles)

        blockerm.start = start_later  # type: ignore[method-assign]
        with pytest.raises(ArchipelagoError):
            await supervisor.restart(None, {"engine": "threads"})
        await until(lambda: states(supervisor) == ran, "as it was")
        assert supervisor.settings == before

    live(home, "apart", body)


def test_other_roles_that_do_not_start(home: Path, killer: Killer) -> None:
    async def body(supervisor: Supervisor) -> None:
        killer.victims = 3
        with pytest.raises(ArchipelagoError):
            await supervisor.stop_peer("mapperd", force=True)
        await until(
            lambda: set(states(supervisor).values()) == {"running"}, "all running"
        )
        assert len(killer.killed) == 3

    live(home, "together", body)
