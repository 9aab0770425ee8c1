# SPDX-License-Identifier: Apache-2.0
"""What the tests that kill and restart peers share: whom, when, and what may be left.

``KILL_ROUNDS`` says how often each of them kills (default 3); ``make soak`` raises it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archipelago.paths import segment_name
from tests.helpers.instance import Instance
from tests.integration.verifier import Verifier
from xseg import Segment

MIB = 1 << 20
_SECTOR = 4096
ROUNDS = int(os.environ.get("KILL_ROUNDS", "3"))
#: How long the product may take to settle [s]: longer is a failure.
PATIENCE = 100.0
_numbers = itertools.count()


def until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait for something that the product brings about by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what()}"


def pids(instance: Instance) -> dict[str, int]:
    """Process numbers of the peers that run, by name."""
    status = instance.status()
    return {p["name"]: p["pid"] for p in status["peers"] if p["state"] == "running"}


def survivors(instance: Instance) -> dict[str, int]:
    """Process numbers of the peers that run, by name, as soon as one does."""
    until(lambda: bool(pids(instance)), lambda: "a peer runs")
    return pids(instance)


def all_run(instance: Instance) -> None:
    """Wait until all peers run."""
    until(lambda: len(pids(instance)) == 4, lambda: f"all run: {pids(instance)}")


def kill(numbers: set[int], rng: random.Random) -> None:
    """kill -9, in any order."""
    for pid in rng.sample(sorted(numbers), len(numbers)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def await_end(pid: int) -> None:
    """Wait until a process that is no child of ours has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        assert poller.poll(PATIENCE * 1000), f"pid {pid} does not end"
    finally:
        os.close(fd)


def processes_of(instance: Instance) -> set[int]:
    """All living processes that were started for an instance."""
    found = set()
    mark = f"ARCHIPELAGO_HOME={instance.home}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
    return found


def new_volume(instance: Instance, stem: str, size: int) -> str:
    """Create a volume that reads as zeros; its name."""
    name = f"{stem}-{next(_numbers)}"
    instance.vlmc("create", name, "--size", f"{size // MIB}M")
    return name


@contextlib.contextmanager
def load(
    instance: Instance, volume: str, rng: random.Random, size: int = 6 * MIB
) -> Iterator[Verifier]:
    """A verifier at work on a new volume; whatever it finds fails the test."""
    volume = new_volume(instance, volume, size)
    seed = rng.getrandbits(32)
    print(f"{volume}: verifier seed {seed}")
    path = instance.status()["nbd"][0]
    with Verifier(path, volume, size, seed) as verifier:
        try:
            yield verifier
            verifier.finish()
        except BaseException:
            print(instance.logs())
            raise
    print(
        f"{volume}: {sum(w.answers for w in verifier.workers)} answers, "
        f"longest pause {verifier.longest_pause:.3f} s, "
        f"longest request {verifier.longest_request:.3f} s"
    )


# What may be left


@dataclass(frozen=True)
class Census:
    """What an instance at rest holds.

    Attributes:
        requests: descriptors of the segment that are in use or kept in reserve.
        buffers: of its heap, in use.
        dead_ports: of processes that are no more.  (Threads of the living bind theirs
            when they need one.)
        descriptors: open files of the supervisor.
        processes: number of them.
    """

    requests: int
    buffers: int
    dead_ports: int
    descriptors: int
    processes: int


def census(instance: Instance) -> Census:
    """Count when all is as it shall be: every process has its successor prepared."""
    until(
        lambda: (
            len(processes_of(instance)) == 1 + 2 * len(set(pids(instance).values()))
        ),
        lambda: f"a successor for each: {pids(instance)}, {processes_of(instance)}",
    )
    return _count(instance)


def _count(instance: Instance) -> Census:
    status = instance.status()
    with Segment.attach(segment_name(instance.home)) as segment:
        statistics = segment.statistics()
        return Census(
            statistics.nr_requests - statistics.nr_free_requests,
            statistics.nr_used_buffers,
            sum(not port.alive for port in segment.ports()),
            len(list(Path(f"/proc/{status['pid']}/fd").iterdir())),
            len(processes_of(instance)),
        )


def same_as(instance: Instance, before: Census) -> None:
    """Wait until an instance at rest holds what it held before."""
    until(
        lambda: _count(instance) == before,
        lambda: f"nothing leaked: before {before}, now {_count(instance)}",
    )


def peer_descriptors(instance: Instance) -> int:
    """Open files of all peers."""
    return sum(
        len(list(Path(f"/proc/{pid}/fd").iterdir()))
        for pid in set(pids(instance).values())
    )


def write_and_die(instance: Instance, name: str, rng: random.Random) -> None:
    """Write without a flush; when it is answered, writer and peers are killed."""
    reading, writing = os.pipe()
    writer = os.fork()
    if writer == 0:
        try:
            with instance.connect() as client, client.open(name) as volume:
                volume.pwrite(b"a" * _SECTOR, 0)
                volume.flush()
                volume.pwrite(b"c" * _SECTOR, 0)
                volume.pwrite(b"b" * 2 * _SECTOR, 2 * _SECTOR)
                volume.zero(3 * _SECTOR, _SECTOR)
                os.write(writing, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert select.select([reading], [], [], 60)[0] and os.read(reading, 1)
    finally:
        os.close(reading)
        # Stopped first: it must not come back and flush.
        os.kill(writer, signal.SIGSTOP)
        victims = set(pids(instance).values())
        kill(victims, rng)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    for pid in victims:
        await_end(pid)
    all_run(instance)


def check_answered(instance: Instance, name: str) -> None:
    """All that `write_and_die` was answered is there."""
    with instance.connect() as client, client.open(name) as volume:
        read = volume.pread(4 * _SECTOR, 0)
    assert [read[i * _SECTOR : i * _SECTOR + 1] for i in range(4)] == [
        b"c",
        b"\0",
        b"b",
        b"\0",
    ]
