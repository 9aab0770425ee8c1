# SPDX-License-Identifier: Apache-2.0
"""Volumes as block devices: filesystems, tools, restarts and deaths under load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.probe import State, probe
from tests.helpers.instance import Instance, running_instance

_LACKING = [
    f"{feature.name}: {feature.found}"
    for feature in probe()
    if feature.name in ("fuse", "loop") and feature.state is not State.READY
]
pytestmark = [
    pytest.mark.requires_root,
    pytest.mark.skipif(os.geteuid() != 0, reason="block devices need root"),
    pytest.mark.skipif(bool(_LACKING), reason="; ".join(_LACKING)),
]


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [os.fspath(word) for word in command], capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", params=["together", "apart"])
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    with running_instance(placement=request.param) as running:
        yield running


@pytest.fixture
def device(instance: Instance) -> Iterator[Path]:
    instance.vlmc("create", "disk", "--size", "512M")
    path = Path(instance.vlmc("map", "disk").strip())
    yield path
    instance.vlmc("unmap", "disk")
    assert not path.is_symlink()
    for volume in instance.connect_and_list():
        instance.vlmc("rm", volume)


def test_mapping_twice_gives_the_same_device(instance: Instance, device: Path) -> None:
    assert device.name.startswith("xsegbd") and device.is_block_device()
    assert instance.vlmc("map", "disk").strip() == str(device)
    (shown,) = json.loads(instance.vlmc("--json", "showmapped"))
    assert shown["volume"] == "disk" and shown["device"] == str(device)
    assert shown["driver"] == "loop" and shown["read_only"] is False
    refused = instance.command("vlmc", "map", "disk", "--read-only")
    assert refused.returncode == 5 and "unmap it first" in refused.stderr
    instance.vlmc("snapshot", "disk", "snap")
    other = instance.command("vlmc", "map", "snap")
    assert other.returncode == 2 and "--read-only" in other.stderr
    read_only = Path(instance.vlmc("map", "--read-only", "snap").strip())
    with open(read_only, "r+b", buffering=0) as file, pytest.raises(OSError):
        file.write(bytes(4096))
    instance.vlmc("unmap", str(read_only))
    strange = instance.command("vlmc", "unmap", "/dev/xsegbd999")
    assert strange.returncode == 2 and "showmapped" in strange.stderr


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_filesystem(
    instance: Instance, device: Path, tmp_path: Path, filesystem: str
) -> None:
    if shutil.which(f"mkfs.{filesystem}") is None:
        pytest.skip(f"mkfs.{filesystem} is not installed")
    mount = tmp_path / "mnt"
    mount.mkdir()
    run(f"mkfs.{filesystem}", *(["-F"] if filesystem == "ext4" else ["-f"]), device)
    run("mount", device, mount)
    try:
        (mount / "file").write_bytes(os.urandom(8 << 20))
        before = (mount / "file").read_bytes()
        busy = instance.command("vlmc", "unmap", "disk")
        assert busy.returncode == 5 and f"mounted on {mount}" in busy.stderr
        run("fsfreeze", "--freeze", mount)
        instance.vlmc("snapshot", "disk", "frozen")
        run("fsfreeze", "--unfreeze", mount)
        instance.archipelago("restart")
        assert (mount / "file").read_bytes() == before
        (mount / "file").unlink()
        run("sync")
        run("fstrim", mount)
        used = json.loads(instance.vlmc("--json", "info", "disk"))["private_bytes"]
        assert used < 8 << 20
    finally:
        run("umount", mount)
    check = ["e2fsck", "-fn"] if filesystem == "ext4" else ["xfs_repair", "-n"]
    run(*check, device)
    instance.vlmc("clone", "frozen", "thawed")
    copy = Path(instance.vlmc("map", "thawed").strip())
    run("mount", copy, mount)
    try:
        assert (mount / "file").read_bytes() == before
    finally:
        run("umount", mount)
        instance.vlmc("unmap", str(copy))


def test_an_open_device_is_not_unmapped(instance: Instance, device: Path) -> None:
    with open(device, "rb") as held:
        refused = instance.command("vlmc", "unmap", "disk")
        assert refused.returncode == 5
        assert f"(pid {os.getpid()})" in refused.stderr
        assert device.is_symlink() and held.read(1)


def test_a_resize_while_mapped(instance: Instance, device: Path) -> None:
    run("mkfs.ext4", "-F", device)
    os.stat(instance.home / "run" / "volumes" / "disk")  # the kernel knows the old size
    instance.vlmc("resize", "disk", "--size", "1G")
    assert instance.vlmc("map", "disk").strip() == str(device)
    assert int(run("blockdev", "--getsize64", device)) == 1 << 30
    run("e2fsck", "-fp", device)
    run("resize2fs", device)
    run("e2fsck", "-fn", device)


@pytest.mark.requires_fio
def test_kills_under_verified_load(instance: Instance, device: Path) -> None:
    if shutil.which("fio") is None:
        pytest.skip("fio is not installed")
    fio = subprocess.Popen(
        [
            "fio", "--name=load", f"--filename={device}", "--direct=1", "--size=128M",
            "--rw=randwrite", "--bs=4k-64k", "--ioengine=libaio", "--iodepth=16",
            "--verify=crc32c", "--do_verify=1", "--io_size=768M", "--randseed=7",
            "--verify_state_save=0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    kills = 0
    while fio.poll() is None and kills < 4:
        peers = instance.status()["peers"]
        vlmcd = next(peer for peer in peers if peer["name"] == "vlmcd")
        if vlmcd["state"] == "running":
            os.kill(vlmcd["pid"], signal.SIGKILL)
            kills += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            fio.wait(1)
    output, _ = fio.communicate(timeout=300)
    assert fio.returncode == 0, output
    assert kills >= 2, "the load ended before there were deaths"


def test_stop_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    with running_instance() as instance:
        instance.vlmc("create", "disk", "--size", "16M")
        device = Path(instance.vlmc("map", "disk").strip())
        refused = instance.command("archipelago", "stop")
        assert refused.returncode == 5 and "mapped" in refused.stderr
        kernel_device = Path(os.path.realpath(device)).name
    backing = Path("/sys/block", kernel_device, "loop/backing_file")
    assert not backing.exists() or "disk" not in backing.read_text()
    assert not device.is_symlink()
