# SPDX-License-Identifier: Apache-2.0
"""The instance of a workload: real peers in processes that may be killed at any time.

Stands where the supervisor stands: it makes the segment and the memory for marks,
starts the peers, and starts a dead peer again; but it looks at the files first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from archipelago.client import Client
from archipelago.settings import ROLES
from archipelago.supervisor.ground import make_mark_log
from archipelago.volume.context import Limits
from archipelago.volume.incarnation import NONCE_BYTES
from tests.crash.death import observe
from tests.crash.journal import Recorder
from xseg import Segment
from xseg.testing import unique_name

MIB = 1 << 20
BLOCK = 64 << 10


@dataclass(frozen=True)
class Node:
    """The identity of an instance, and how it runs.

    Attributes:
        home: holds its uuid.
        store: its store.
        log: of the recorder.
        engine: "io_uring" or "threads".
        direct: whether data goes past the page cache.
        apart: whether each peer has a process of its own.
        limits: of the work in the background.
        mortal: its processes may die at a chosen call.
    """

    home: Path
    store: Path
    log: Path
    engine: str
    direct: bool
    apart: bool
    limits: Limits
    mortal: bool


class _Peer:
    """One process; started again by a thread of its own whenever it dies."""

    def __init__(self, instance: Instance, roles: tuple[str, ...]) -> None:
        self._instance = instance
        self._roles = roles
        self.process = self._spawn()
        self._await_ready()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _spawn(self) -> subprocess.Popen[bytes]:
        instance = self._instance
        mortal = {"CRASH_MORTAL": "1"} if instance.node.mortal else {}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.peer", *self._roles],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **mortal},
            pass_fds=[instance.marks_fd, instance.nbd.fileno()],
        )
        assert process.stdin is not None
        told = json.dumps(instance.told(self._roles)).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(told)
            process.stdin.flush()
        return process

    def _await_ready(self) -> None:
        """It may need the others for that, which may have to be started again, too."""
        process, instance = self.process, self._instance
        assert process.stdout is not None
        ready = process.stdout.readline() == b"ready\n"
        if not ready and not instance.stopping and process.wait() != -signal.SIGKILL:
            instance.fail(f"{self._roles} does not start")

    def _watch(self) -> None:
        instance = self._instance
        while True:
            status = self.process.wait()
            with instance.mourning:
                instance.bury(self.process.pid, status)
                if instance.stopping:
                    return
                if status != -signal.SIGKILL:
                    instance.fail(f"{self._roles} ended with status {status}")
                    return
                self.process = self._spawn()
            self._await_ready()

    def join(self) -> None:
        """Wait until it has ended for good."""
        self._watcher.join()


class Instance:
    """A running instance.

    Args:
        node: what to run.
        recorder: of this process.
        marks_fd: the memory for marks of an instance that was killed, to be its
            supervisor's again; -1 makes one.
    """

    def __init__(self, node: Node, recorder: Recorder, marks_fd: int = -1) -> None:
        self.node = node
        self.marks_fd = marks_fd if marks_fd >= 0 else make_mark_log()
        # A run of an instance lives as long as its memory for marks.
        run = f"{node.home} {os.fstat(self.marks_fd).st_ino}"
        self.nonce = hashlib.sha256(run.encode()).digest()[:NONCE_BYTES]
        # No client connects, but vlmcd wants a socket.
        self.nbd = socket.socket(socket.AF_UNIX)
        self.nbd.bind(b"\0" + unique_name("crash").encode())
        self.nbd.listen()
        self.stopping = False
        self.mourning = threading.Lock()
        self.deaths = 0
        self.failure = ""
        self._recorder = recorder
        node.home.mkdir(exist_ok=True)
        self.segment = Segment.create(
            unique_name("crash"), requests=1024, heap_bytes=64 * MIB
        )
        groups = [(role,) for role in ROLES] if node.apart else [tuple(ROLES)]
        self._peers = [_Peer(self, roles) for roles in groups]

    def told(self, roles: tuple[str, ...]) -> dict[str, Any]:
        """What a peer process reads from its standard input."""
        node = self.node
        config = {
            "segment": self.segment.name,
            "roles": list(roles),
            "backend": "file",
            "data_path": str(node.store / "data"),
            "maps_path": str(node.store / "maps"),
            "engine": node.engine,
            "direct": node.direct,
            "io_timeout": 60.0,
            "listen_fds": [self.nbd.fileno()] if "vlmcd" in roles else [],
            "marks_fd": self.marks_fd if "mapperd" in roles else -1,
            "nonce": self.nonce.hex(),
            "supervisor_pid": 0,  # each process is its own: a rival need not wait
            "log_level": 1,
            "lease_ttl": 10.0,
            "instance_file": str(node.home / "instance"),
            "block_size": BLOCK,
            "umask": 0o077,
        }
        return {
            "config": config,
            "limits": asdict(node.limits),
            "host": node.home.name,
        }

    def connect(self) -> Client:
        """A client of it."""
        return Client(Segment.attach(self.segment.name), self.node.home)

    def fail(self, why: str) -> None:
        """Remember why the workload is worth nothing."""
        self.failure = self.failure or why

    def bury(self, pid: int, status: int) -> None:
        """A process has ended: put into the log what it was doing."""
        if status == -signal.SIGKILL:
            self.deaths += 1
            calls = observe(self._recorder, self.node.log, self.node.store, pid)
            self._recorder.mark(json.dumps({"note": "death", "calls": calls}))
        self.segment.reap()

    def kill(self, rng: random.Random) -> None:
        """Kill a process, unless it has just ended; it is started again."""
        with self.mourning:
            rng.choice(self._peers).process.kill()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all of it, in good order or by SIGKILL; `marks_fd` stays open."""
        with self.mourning:
            self.stopping = True
        for peer in reversed(self._peers):
            peer.process.send_signal(number)
            peer.join()
        Segment.destroy(self.segment.name)
        self.segment.close()
        self.nbd.close()
        assert not self.failure, self.failure
