# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 28: what hangs, and a filesystem that went read-only.

A peer that hangs had every command wait for ever; on a filesystem gone read-only the
supervisor did not end, and nothing could be unmounted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault.disks import why_not
from tests.helpers.instance import Instance
from tests.helpers.waiting import wait_until


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    made = Instance(tmp_path / "home")
    made.home.mkdir()
    yield made
    made.stop()


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that does not come to run."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def mounted(scratch: Path) -> Iterator[Path]:
    """An ext4 of its own; the end fails if it cannot be unmounted."""
    image, where = scratch / "image", scratch / "mnt"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(96 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(where)])
    if done.returncode:
        pytest.skip("cannot mount")
    try:
        yield where
    except BaseException:
        subprocess.run(["umount", "-l", str(where)], check=False)
        raise
    # The last of its processes may be on its way out.
    wait_until(
        lambda: subprocess.run(["umount", str(where)]).returncode == 0, "unmount"
    )


def peer(instance: Instance, name: str) -> Any:
    return next(p for p in instance.status()["peers"] if p["name"] == name)


def test_a_peer_that_hangs_is_named(instance: Instance) -> None:
    instance.archipelago("start", "-o", "placement=apart", "-o", "watchdog=0")
    pid = peer(instance, "blockerm")["pid"]
    with frozen(pid):
        done = instance.command("vlmc", "list")
        assert done.returncode == 10, done.stderr
        assert f"blockerm (pid {pid}) does not answer" in done.stderr
        assert done.stderr.count("\n") == 1
        wait_until(lambda: peer(instance, "blockerm")["state"] == "hung", "state hung")
        shown = instance.command("archipelago", "status")
        assert shown.returncode == 10
        assert "not well, blockerm hung" in shown.stdout
    instance.vlmc("list")
    wait_until(lambda: peer(instance, "blockerm")["state"] == "running", "running")
    assert peer(instance, "blockerm")["restarts"] == 0


def test_the_watchdog_replaces_a_peer_that_hangs(instance: Instance) -> None:
    instance.archipelago("start", "-o", "placement=apart", "-o", "watchdog=10")
    pid = peer(instance, "blockerm")["pid"]
    with frozen(pid):
        wait_until(lambda: peer(instance, "blockerm")["restarts"] == 1, "a restart")
        instance.vlmc("create", "v", "--size", "1M")
    log = (instance.home / "log" / "supervisor.log").read_text()
    assert f"blockerm (pid {pid}) has not answered for" in log


def test_a_supervisor_that_hangs_keeps_no_command_waiting(instance: Instance) -> None:
    instance.start()
    pid = instance.status()["pid"]
    with frozen(pid):
        done = instance.command("archipelago", "status")
        assert done.returncode == 10
        assert f"the supervisor (pid {pid}) has not answered" in done.stderr
        # Volumes are served without it.
        instance.vlmc("list")


def test_a_stopped_peer_is_named_at_once(instance: Instance) -> None:
    instance.start()
    instance.archipelago("stop", "blockerm")
    done = instance.command("vlmc", "list")
    assert done.returncode == 8
    assert 'blockerm is stopped: "archipelago start blockerm" starts it' in done.stderr


@pytest.mark.skipif(bool(why_not("ext4")), reason=why_not("ext4"))
def test_a_filesystem_gone_read_only_can_be_unmounted(tmp_path: Path) -> None:
    with mounted(tmp_path) as disk:
        instance = Instance(disk / "home")
        instance.home.mkdir()
        instance.start()
        instance.vlmc("create", "v", "--size", "8M")
        instance.vlmc("open", "v")
        subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=True)
        instance.archipelago("status")
        instance.archipelago("stop", "-f")
        instance.archipelago("status", exit_code=8)
        # `mounted` unmounts it, which fails if anything still has a file open there.
