# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 13: an export to a block device was not synced, and JSON was appended.

An export ends well only when the image is whole and durable, and standard output
carries nothing but the image.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from archipelago import Client
from archipelago.images.export import export_volume
from tests.helpers.inprocess import MIB, running
from tests.helpers.instance import BIN, running_instance

SIZE = 3 * MIB + 4096
IMAGE = random.Random(13).randbytes(SIZE)

requires_loop = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"),
    reason="loop devices need root",
)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with running(tmp_path) as instance, instance.connect() as connected:
        connected.create("v", SIZE)
        with connected.open("v") as volume:
            volume.pwrite(IMAGE, 0)
        yield connected


@contextlib.contextmanager
def loop_device(path: Path, size: int) -> Iterator[str]:
    path.write_bytes(b"\xee" * size)
    attach = ["losetup", "--find", "--show", str(path)]
    attached = subprocess.run(attach, capture_output=True, text=True)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr}")
    device = attached.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kinds of file that were synced, as the kernel was asked."""
    kinds: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        kinds.append(os.fstat(fd).st_mode & 0o170000)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return kinds


@requires_loop
def test_a_block_device_is_synced(
    client: Client, tmp_path: Path, synced: list[int]
) -> None:
    with loop_device(tmp_path / "disk", SIZE + MIB) as device:
        export_volume(client, "v", device)
        assert synced == [0o060000]
    assert (tmp_path / "disk").read_bytes() == IMAGE + b"\xee" * MIB


@requires_loop
def test_a_block_device_that_is_too_small_keeps_its_bytes(
    client: Client, tmp_path: Path
) -> None:
    with loop_device(tmp_path / "disk", SIZE - 4096) as device:
        with pytest.raises(OSError, match=f"the volume has.*{device}") as told:
            export_volume(client, "v", device)
        assert told.value.errno == errno.ENOSPC
    assert (tmp_path / "disk").read_bytes() == b"\xee" * (SIZE - 4096)


@requires_loop
def test_a_full_filesystem_fails_by_name(client: Client, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount")
    try:
        with pytest.raises(OSError, match=str(small / "image")) as told:
            export_volume(client, "v", small / "image")
        assert told.value.errno == errno.ENOSPC
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_standard_output_is_the_image_alone(tmp_path: Path) -> None:
    with running_instance() as instance:
        instance.vlmc("create", "v", "--size", f"{SIZE}B")
        with instance.connect() as client, client.open("v") as volume:
            volume.pwrite(IMAGE, 0)
        done = subprocess.run(
            [str(BIN / "vlmc"), "--json", "export", "v", "-"],
            env=instance.env,
            capture_output=True,
        )
        assert done.returncode == 0
        assert done.stdout == IMAGE
        assert b'"file": "-"' in done.stderr
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [str(BIN / "vlmc"), "export", "v", "-"],
                env=instance.env,
                stdout=full,
                stderr=subprocess.PIPE,
            )
        assert done.returncode == 7
        assert b"standard output: No space left on device" in done.stderr
