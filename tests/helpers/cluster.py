# SPDX-License-Identifier: Apache-2.0
"""Several instances ("nodes") on one store: real processes, to be stopped and killed.

Every node is an `Instance` with a home of its own; all have the same two directories of
the store.  Their processes are those below the supervisor in ``/proc``, and are
signalled one by one by their pid.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from archipelago.paths import segment_name
from tests.helpers.instance import Instance

#: Slots of a lease file and what is read of one (docs/format/store.md).
_SLOTS = (0, 4096)
_SLOT = struct.Struct("<8sIIQ32x16s")

#: What `until` waits for comes within this, or never [s].
HANG_SECONDS = 60.0


class NeverHappened(AssertionError):
    """Something that the product should bring about did not come."""


def until(
    condition: Callable[[], bool], what: str, *, look_every: float = 0.01
) -> None:
    """Wait for a condition that the product brings about by itself.

    Args:
        condition: looked at again and again.
        what: for the failure's message.
        look_every: pause between two looks [s].

    Raises:
        NeverHappened: it did not come true.
    """
    end = time.monotonic() + HANG_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise NeverHappened(f"never happened: {what}")
        select.select([], [], [], look_every)


@dataclass
class Node:
    """One instance of a cluster."""

    name: str
    instance: Instance
    #: Processes that `pause` stopped.
    stopped: set[int] = field(default_factory=set)

    @property
    def home(self) -> Path:
        """Directory of the instance."""
        return self.instance.home

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.instance.start()

    @property
    def supervisor(self) -> int:
        """Pid of its supervisor."""
        return int((self.home / "run" / "supervisor.pid").read_text().split()[0])

    def peers(self) -> dict[str, int]:
        """Pid of each role; in the placement "together" they are all the same."""
        status = self.instance.status()
        return {p["name"]: p["pid"] for p in status["peers"] if p["pid"]}

    def processes(self) -> set[int]:
        """All its processes, the supervisor too."""
        return {self.supervisor, *_children(self.supervisor)}

    def kill(self) -> None:
        """End all its processes at once, as if the machine had lost them."""
        supervisor, *_ = everyone = [self.supervisor, *_children(self.supervisor)]
        # Stopped first: it shall not see its peers die and start new ones.
        os.kill(supervisor, signal.SIGSTOP)
        everyone += [p for p in _children(supervisor) if p not in everyone]
        for pid in everyone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stopped.clear()
        # Not zombies either: one whose threads are still ending may have I/O under way,
        # and so its leases count.
        until(lambda: all(_state(p) == "X" for p in everyone), f"{self.name} is dead")

    def kill_peer(self, role: str) -> None:
        """End the process of a role; its supervisor starts another one."""
        os.kill(self.peers()[role], signal.SIGKILL)

    def pause(self, roles: Iterable[str] = ()) -> None:
        """Stop (SIGSTOP) the processes of some roles, or all processes without any."""
        wanted = set(roles)
        if wanted:
            peers = self.peers()
            self._stop([peers[role] for role in wanted])
        else:
            # First: until a child that it makes has begun, it cannot stop.
            self._stop([self.supervisor])
            self._stop(_children(self.supervisor))

    def _stop(self, pids: Sequence[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            self.stopped.add(pid)
        for pid in pids:
            until(lambda pid=pid: _state(pid) in "Tt", f"{pid} is stopped")  # type: ignore[misc]

    def resume(self) -> None:
        """Let what `pause` stopped go on."""
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()

    def remove_remains(self) -> None:
        """Remove the shared memory that a killed instance cannot give back."""
        with contextlib.suppress(FileNotFoundError):
            (Path("/dev/shm") / segment_name(self.home)).unlink()


@dataclass
class Cluster:
    """Nodes and the store they share."""

    folder: Path
    nodes: list[Node]

    @property
    def data(self) -> Path:
        """The directory of data."""
        return self.folder / "data"

    @property
    def maps(self) -> Path:
        """The directory of maps."""
        return self.folder / "maps"

    def held_leases(self) -> list[str]:
        """The volumes (uuid in hex) whose lease was not given back."""
        return sorted(
            path.name for path in (self.maps / "leases").iterdir() if _is_held(path)
        )


@contextlib.contextmanager
def running_cluster(
    nodes: int,
    *,
    folder: Path | None = None,
    variables: Sequence[Mapping[str, str]] = (),
    **settings: str,
) -> Iterator[Cluster]:
    """Start a cluster; at the end it is stopped, and removed unless `folder` is given.

    Args:
        nodes: how many.
        folder: where homes and store go, for a test that keeps them.
        variables: of the environment, for each of the first nodes.
        settings: of all nodes, see `archipelago.settings`.
    """
    where = folder or Path(tempfile.mkdtemp(prefix="arch-nodes-"))
    store = {"data_path": str(where / "data"), "maps_path": str(where / "maps")}
    # What a test pauses stays paused, however long the machine takes for the rest.
    settings = {"watchdog": "0", **settings}
    cluster = Cluster(where, [])
    try:
        for number in range(nodes):
            home = where / f"n{number}"
            home.mkdir()
            own = dict(variables[number]) if number < len(variables) else {}
            node = Node(f"n{number}", Instance(home, settings | store, own))
            cluster.nodes.append(node)
            node.start()
        yield cluster
    finally:
        for node in cluster.nodes:
            node.resume()
        for node in cluster.nodes:
            node.instance.stop()
            node.remove_remains()
        if folder is None:
            shutil.rmtree(where, ignore_errors=True)


def _is_held(lease: Path) -> bool:
    data = lease.read_bytes()
    slots = [_SLOT.unpack_from(data, at) for at in _SLOTS if len(data) >= at + 512]
    whole = [slot for slot in slots if slot[0] == b"ACPLEAS1"]
    # by sequence; the nonce of the newest, zeros if it is free
    return bool(whole) and max(whole, key=lambda slot: int(slot[3]))[4] != bytes(16)


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        texts = [(task / "children").read_text() for task in tasks]
    except FileNotFoundError:
        return []
    return [int(child) for text in texts for child in text.split()]


def _state(pid: int) -> str:
    """One letter of proc(5), X if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
