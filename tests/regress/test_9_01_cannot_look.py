# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 1: a process that could not look at its peers took them for dead."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from archipelago.paths import segment_name
from tests.helpers.instance import BIN, Instance, running_instance
from xseg import Segment
from xseg.constants import PORT_BLOCKERB, PORT_BLOCKERM, PORT_MAPPERD, PORT_VLMCD

NATIVE = {PORT_BLOCKERB, PORT_BLOCKERM, PORT_MAPPERD, PORT_VLMCD}
#: Of struct xseg_header and struct xseg_port_shared, in docs/format/segment.md.
PORTS_OFF, PORT_BYTES, OWNER_OFF = 4096, 768, 656
#: At most so long until a supervisor has mended its instance [s].
PATIENCE = 60.0

#: A client without a free descriptor, and then without a /proc.
BLIND = """
import resource, sys, xseg
segment = xseg.Segment.attach(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
assert segment.reap() == xseg.ReapResult(0, 0, 0)
assert all(port.alive for port in segment.ports())
"""


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance() as running:
        yield running


def bound(instance: Instance) -> set[int]:
    with Segment.attach(segment_name(instance.home)) as segment:
        return {port.id for port in segment.ports() if port.alive}


def test_a_client_without_descriptors_reaps_nobody(instance: Instance) -> None:
    subprocess.run(
        [sys.executable, "-c", BLIND, segment_name(instance.home)], check=True
    )
    assert bound(instance) >= NATIVE
    instance.vlmc("create", "after-blind", "--size", "1M")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="needs root and unshare(1)",
)
@pytest.mark.parametrize("proc", [["--mount-proc"], []])
def test_a_command_in_a_pid_namespace_of_its_own_harms_nobody(
    instance: Instance, proc: list[str]
) -> None:
    name = "inside" + str(len(proc))
    create = [str(BIN / "vlmc"), "create", name, "--size", "1M"]
    subprocess.run(
        ["unshare", "--pid", "--fork", *proc, *create],
        env=instance.env,
        check=True,
        timeout=PATIENCE,
    )
    assert bound(instance) >= NATIVE
    assert name in instance.vlmc("list")


def test_peers_that_lost_their_ports_are_mended(instance: Instance) -> None:
    path = f"/dev/shm/{segment_name(instance.home)}"
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        for port in NATIVE:  # owned by no process: as good as dead
            struct.pack_into("<Q", memory, PORTS_OFF + port * PORT_BYTES + OWNER_OFF, 0)
        with Segment.attach(segment_name(instance.home)) as segment:
            assert segment.reap().ports >= len(NATIVE)
    status = instance.status()
    if not bound(instance) >= NATIVE:
        assert any(peer["state"] != "running" for peer in status["peers"])
    deadline = time.monotonic() + PATIENCE
    while not bound(instance) >= NATIVE:
        assert time.monotonic() < deadline, "the supervisor mends nothing"
    instance.vlmc("create", "after-mending", "--size", "1M")
