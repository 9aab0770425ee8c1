# SPDX-License-Identifier: Apache-2.0
"""Volumes as files: read, write, list, survive the process that serves them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.fusemount import mounted_type
from kernel.probe import State, probe
from tests.helpers.instance import Instance, running_instance

_FUSE = next(feature for feature in probe() if feature.name == "fuse")
pytestmark = pytest.mark.skipif(
    _FUSE.state is not State.READY, reason=f"no FUSE here: {_FUSE.found}"
)

MIB = 1 << 20


@pytest.fixture(scope="module", params=["together", "apart"])
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    with running_instance(placement=request.param) as running:
        yield running


@pytest.fixture
def folder(instance: Instance, tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "volumes"
    where.mkdir()
    instance.vlmc("mount", str(where))
    yield where
    instance.vlmc("unmount", str(where))
    assert mounted_type(where) is None
    for volume in instance.connect_and_list():
        instance.vlmc("rm", volume)


def test_every_volume_and_snapshot_is_a_file(instance: Instance, folder: Path) -> None:
    assert os.listdir(folder) == []
    instance.vlmc("create", "one", "--size", "10M")
    instance.vlmc("create", "größe", "--size", "4097B")
    instance.vlmc("snapshot", "one", "snap")
    assert sorted(os.listdir(folder)) == ["größe", "one", "snap"]
    instance.vlmc("mount", str(folder))  # it is there: nothing happens
    assert (folder / "one").stat().st_size == 10 * MIB
    assert (folder / "größe").stat().st_size == 4097
    assert (folder / "one").stat().st_mode & 0o222
    assert not (folder / "snap").stat().st_mode & 0o222
    with pytest.raises(FileNotFoundError):
        (folder / "absent").stat()
    with pytest.raises(OSError) as refused:
        (folder / "new").write_bytes(b"x")
    assert refused.value.errno in (errno.EPERM, errno.ENOSYS)
    with pytest.raises(PermissionError):
        (folder / "one").unlink()
    with pytest.raises(PermissionError):
        os.truncate(folder / "one", 5)


def test_bytes_are_the_volume(instance: Instance, folder: Path) -> None:
    instance.vlmc("create", "v", "--size", "3M")
    data = os.urandom(2 * MIB + 777)
    with open(folder / "v", "r+b", buffering=0) as file:
        file.seek(12345)
        written = 0
        while written < len(data):
            written += file.write(data[written:])
        os.fsync(file.fileno())
        with instance.connect() as client, client.open("v", read_only=True) as volume:
            assert volume.pread(len(data), 12345) == data
        file.seek(3 * MIB - 1)
        assert file.read(100) == b"\0"
        assert file.read(100) == b""
        with pytest.raises(OSError) as beyond:
            os.pwrite(file.fileno(), b"x", 3 * MIB)
        assert beyond.value.errno == errno.ENOSPC
    instance.vlmc("snapshot", "v", "s")
    with open(folder / "s", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 12345) == data[:1000]
    with pytest.raises(OSError):
        os.close(os.open(folder / "s", os.O_RDWR))


def test_holes_are_shown_and_made(instance: Instance, folder: Path) -> None:
    instance.vlmc("create", "v", "--size", "8M")
    with open(folder / "v", "r+b", buffering=0) as file:
        fd = file.fileno()
        os.pwrite(fd, b"a" * 65536, 4 * MIB)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 4 * MIB
        assert os.lseek(fd, 4 * MIB, os.SEEK_HOLE) == 4 * MIB + 65536
        with pytest.raises(OSError) as none:
            os.lseek(fd, 5 * MIB, os.SEEK_DATA)
        assert none.value.errno == errno.ENXIO
        os.fsync(fd)
        subprocess.run(
            ["fallocate", "-p", "-o", str(4 * MIB), "-l", "32768", folder / "v"],
            check=True,
        )
        assert os.pread(fd, 32768, 4 * MIB) == bytes(32768)
        assert os.pread(fd, 4096, 4 * MIB + 32768) == b"a" * 4096
        assert os.lseek(fd, 0, os.SEEK_DATA) == 4 * MIB + 32768


def test_a_resize_shows(instance: Instance, folder: Path) -> None:
    instance.vlmc("create", "v", "--size", "1M")
    with open(folder / "v", "r+b", buffering=0) as file:
        instance.vlmc("resize", "v", "--size", "2M")
        os.stat(folder / "v")
        deadline = threading.Event()
        while os.fstat(file.fileno()).st_size != 2 * MIB:
            deadline.wait(0.05)
        assert os.pwrite(file.fileno(), b"end", 2 * MIB - 3) == 3
        assert os.pread(file.fileno(), 10, 2 * MIB - 3) == b"end"


def _vlmcd(instance: Instance) -> int:
    peers = instance.status()["peers"]
    return int(next(peer["pid"] for peer in peers if peer["name"] == "vlmcd"))


def test_a_killed_process_is_not_noticed(instance: Instance, folder: Path) -> None:
    """Each write is answered or repeated, and each is there in the end."""
    instance.vlmc("create", "v", "--size", "64M")
    stop = threading.Event()
    written: list[int] = []
    errors: list[BaseException] = []

    def write() -> None:
        try:
            with open(folder / "v", "r+b", buffering=0) as file:
                number = 0
                while not stop.is_set():
                    number += 1
                    at = number % 8192 * 4096
                    os.pwrite(file.fileno(), number.to_bytes(8, "little") * 512, at)
                    written.append(number)
                    if number % 64 == 0:
                        os.fsync(file.fileno())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(3):
        before = len(written)
        while len(written) < before + 200 and not errors:
            stop.wait(0.01)
        os.kill(_vlmcd(instance), signal.SIGKILL)
        count = len(written)
        while len(written) < count + 50 and not errors:
            stop.wait(0.01)
    instance.archipelago("restart")
    stop.set()
    thread.join()
    assert not errors
    latest = {number % 8192: number for number in written}
    with open(folder / "v", "rb", buffering=0) as file:
        for slot, number in latest.items():
            found = os.pread(file.fileno(), 4096, slot * 4096)
            assert found == number.to_bytes(8, "little") * 512, (slot, number)


def test_what_is_refused(instance: Instance, folder: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("x")
    assert "not empty" in instance.command("vlmc", "mount", str(full)).stderr
    absent = instance.command("vlmc", "mount", str(tmp_path / "absent"))
    assert absent.returncode == 2 and "mkdir" in absent.stderr
    strange = instance.command("vlmc", "unmount", str(full))
    assert strange.returncode == 2 and "no mount of this instance" in strange.stderr
    instance.vlmc("create", "v", "--size", "1M")
    with open(folder / "v", "rb"):
        busy = instance.command("vlmc", "unmount", str(folder))
        assert busy.returncode != 0 and "are open" in busy.stderr
