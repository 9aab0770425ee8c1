# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 8: a mistake in the settings hid what ran.

So did a removed run directory.  Commands find a running supervisor by the place of the
instance alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from archipelago import paths
from archipelago.supervisor import address, ground
from archipelago.supervisor.lock import AlreadyRunning
from archipelago.supervisor.record import Record
from tests.helpers.instance import Instance


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    made = Instance(tmp_path / "home")
    made.home.mkdir()
    yield made
    made.stop()


def test_a_mistake_in_the_settings_hides_nothing(instance: Instance) -> None:
    instance.archipelago("start", "-o", "block_size=64K")
    instance.vlmc("create", "v", "--size", "1M")
    (instance.home / "etc").mkdir()
    (instance.home / "etc" / "archipelago.toml").write_text('placment = "apart"\n')
    assert instance.status()["running"]
    assert str(instance.home) in instance.vlmc("url", "v")
    shown = json.loads(instance.archipelago("config", "show", "--json"))
    assert shown["running"]
    assert shown["settings"]["block_size"] == {
        "value": 64 << 10,
        "origin": "command line",
    }
    upcoming = instance.command("archipelago", "config", "show", "--next")
    assert upcoming.returncode == 2
    assert "did you mean placement?" in upcoming.stderr
    instance.archipelago("stop", "vlmcd")
    instance.archipelago("start", "vlmcd")
    instance.archipelago("stop")
    stopped = json.loads(instance.archipelago("status", "--json", exit_code=8))
    assert "did you mean placement?" in stopped["notes"][0]


def test_a_removed_run_directory_hides_nothing(instance: Instance) -> None:
    instance.start()
    pid = instance.status()["pid"]
    shutil.rmtree(instance.home / "run")
    again = instance.command("archipelago", "start")
    assert again.returncode == 5
    assert f"already running (pid {pid})" in again.stderr
    status = instance.status()
    assert (status["running"], status["pid"]) == (True, pid)
    assert any("nbd.sock was removed" in note for note in status["notes"])
    instance.vlmc("list")
    instance.archipelago("stop")
    assert not (Path("/dev/shm") / paths.segment_name(instance.home)).exists()


def test_a_living_segment_is_never_removed(instance: Instance) -> None:
    instance.start()
    name = paths.segment_name(instance.home)
    with pytest.raises(ground.StartError, match="a supervisor that runs"):
        ground.remove_stale_segment(name, Record(instance.home / "run" / "peers"))
    instance.vlmc("list")
    fd = os.open(f"/dev/shm/{name}", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_one_supervisor_has_the_address(tmp_path: Path) -> None:
    where = paths.locate(tmp_path)
    assert address.connect(where, 1.0) is None
    first = address.listen(where)
    assert first is not None
    with first:
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
            address.listen(where)
        found = address.connect(where, 1.0)
        assert found is not None
        with found:
            assert address.peer_pid(found) == os.getpid()
    assert address.connect(where, 1.0) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_strangers_supervisor_is_not_believed(tmp_path: Path) -> None:
    where = paths.locate(tmp_path)
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        stranger = socket.socket(socket.AF_UNIX)
        stranger.bind(f"\0archipelago/{where.tag}")
        stranger.listen()
        os.write(tell, b"x")
        stranger.accept()
        while True:
            stranger.accept()
    try:
        assert os.read(ready, 1) == b"x"
        assert address.connect(where, 1.0) is None
        assert address.listen(where) is None
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_stranger_may_not_command(tmp_path: Path) -> None:
    where = paths.locate(tmp_path)
    listening = address.listen(where)
    assert listening is not None
    for groups, gid, allowed in (([], None, False), ([4], None, False), ([4], 4, True)):
        pid = os.fork()
        if pid == 0:
            os.setgroups(groups)
            os.setresgid(65534, 65534, 65534)
            os.setuid(65534)
            client = socket.socket(socket.AF_UNIX)
            client.connect(f"\0archipelago/{where.tag}")
            client.recv(1)
            os._exit(0)
        listening.setblocking(True)
        server, _ = listening.accept()
        assert address.may_command(server, gid) == allowed
        server.close()
        os.waitpid(pid, 0)
    listening.close()
