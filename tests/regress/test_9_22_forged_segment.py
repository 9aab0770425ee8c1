# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 22: a segment that a stranger had made was believed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archipelago.paths import segment_name
from tests.helpers.instance import Instance
from xseg import NotPermitted, Segment
from xseg.constants import PORT_MAPPERD

STRANGER = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

#: A stranger's segment in which peers seem to run that are the victim's process.
FORGE = f"""
import mmap, os, struct, sys
from xseg import Segment
os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})
name, pid, owner = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Segment.create(name, ports=16, requests=64, heap_bytes=16 << 20, mode=0o666):
    with open("/dev/shm/" + name, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        at = 4096 + {PORT_MAPPERD} * 768
        struct.pack_into("<IIII", memory, at, 2, 1, pid, {PORT_MAPPERD})
        struct.pack_into("<Q", memory, at + 656, owner)
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    made = Instance(tmp_path / "home")
    made.home.mkdir()
    yield made
    made.stop()


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def forge(name: str, pid: int) -> Path:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    owner = pid << 41 | int(fields[19])
    subprocess.run(
        [sys.executable, "-c", FORGE, name, str(pid), str(owner)], check=True
    )
    return Path("/dev/shm") / name


def test_start_kills_nobody_that_a_strangers_segment_names(
    instance: Instance, victim: subprocess.Popen[bytes]
) -> None:
    forged = forge(segment_name(instance.home), victim.pid)
    try:
        done = instance.command("archipelago", "start")
        assert done.returncode != 0
        assert f"{forged} may be written by every user" in done.stderr + done.stdout
        assert victim.poll() is None
        forged.chmod(0o660)
        done = instance.command("archipelago", "start")
        assert f"{forged} belongs to user {STRANGER}" in done.stderr + done.stdout
        assert victim.poll() is None
    finally:
        forged.unlink()
    instance.start()


def test_a_client_gives_a_strangers_segment_nothing(
    instance: Instance, victim: subprocess.Popen[bytes]
) -> None:
    name = segment_name(instance.home)
    forged = forge(f"{name}-stranger", victim.pid)
    try:
        forged.chmod(0o660)
        os.link(forged, f"/dev/shm/{name}")
        done = instance.command("vlmc", "create", "v", "--size", "1M")
        assert done.returncode != 0
        assert "is not trusted" in done.stderr
        with pytest.raises(NotPermitted, match="2 names"):
            Segment.attach(name, owner=STRANGER)
        forged.unlink()
        with pytest.raises(NotPermitted, match=f"belongs to user {STRANGER}"):
            Segment.attach(name)
    finally:
        forged.unlink(missing_ok=True)
        Path(f"/dev/shm/{name}").unlink()
