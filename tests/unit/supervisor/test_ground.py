# SPDX-License-Identifier: Apache-2.0
"""Directories, sockets and segments: rightly owned, never in place of others'."""

from __future__ import annotations

import contextlib
import grp
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archipelago.errors import ConfigError
from archipelago.settings import Settings, load_settings
from archipelago.supervisor import ground
from archipelago.supervisor.record import Record
from xseg import Segment
from xseg.constants import PORT_DYNAMIC, PORT_MAPPERD
from xseg.errors import NotFound


@pytest.fixture(autouse=True)
def restore_umask() -> Iterator[None]:
    mask = os.umask(0o022)
    yield
    os.umask(mask)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = load_settings(tmp_path / "h")
    yield settings
    with contextlib.suppress(NotFound):
        Segment.destroy(settings.segment_name)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_only_the_user_may_enter(settings: Settings) -> None:
    ground.prepare(settings)
    for path in (
        settings.run_dir.parent, settings.run_dir, settings.log_dir, settings.data_path
    ):  # fmt: skip
        assert mode(path) == 0o700


@pytest.mark.requires_root
def test_a_group_may_use_it(tmp_path: Path) -> None:
    group = grp.getgrgid(65534 if os.path.exists("/etc/debian_version") else 1)
    settings = load_settings(tmp_path / "h", group=group.gr_name)
    ground.prepare(settings)
    for path, wanted in (
        (tmp_path / "h", 0o750),
        (settings.run_dir, 0o750),
        (settings.data_path, 0o2770),
    ):
        assert (mode(path), path.stat().st_gid) == (wanted, group.gr_gid)
    with ground.create_segment(settings, record(settings)):
        shm = Path("/dev/shm") / settings.segment_name
        assert (mode(shm), shm.stat().st_gid) == (0o660, group.gr_gid)
        for sock in ground.listen(settings):
            assert mode(settings.nbd_socket) == 0o660
            sock.close()
    Segment.destroy(settings.segment_name)


def test_directories_that_exist_keep_their_mode(settings: Settings) -> None:
    settings.data_path.mkdir(parents=True)
    settings.data_path.chmod(0o755)
    ground.prepare(settings)
    assert mode(settings.data_path) == 0o755


def test_nothing_is_made_for_memory(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "h", backend="mem")
    ground.prepare(settings)
    assert not settings.data_path.exists()


def test_a_run_directory_for_everybody_is_refused(settings: Settings) -> None:
    settings.run_dir.mkdir(parents=True)
    settings.run_dir.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody may write there"):
        ground.prepare(settings)


def test_a_dead_socket_is_replaced_and_a_living_one_is_not(settings: Settings) -> None:
    ground.prepare(settings)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(settings.nbd_socket))
    [living] = ground.listen(settings)
    inode = settings.nbd_socket.stat().st_ino
    with pytest.raises(ground.StartError, match="another process listens on"):
        ground.listen(settings)
    assert settings.nbd_socket.stat().st_ino == inode
    living.close()


def test_what_was_opened_is_closed_when_the_next_fails(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        nbd = {"listen": "127.0.0.1", "port": taken.getsockname()[1]}
        settings = load_settings(tmp_path / "h", nbd=nbd)
        ground.prepare(settings)
        with pytest.raises(ground.StartError, match="Address already in use"):
            ground.listen(settings)
    assert not settings.nbd_socket.exists()


def record(settings: Settings) -> Record:
    return Record(settings.run_dir / "peers")


def test_a_stale_segment_makes_place(settings: Settings) -> None:
    Segment.create(settings.segment_name).close()
    with ground.create_segment(settings, record(settings)) as segment:
        assert segment.statistics().nr_ports == settings.segment.ports


def test_garbage_under_the_segments_name_makes_place(settings: Settings) -> None:
    (Path("/dev/shm") / settings.segment_name).write_bytes(b"garbage" * 1000)
    ground.create_segment(settings, record(settings)).close()


@pytest.mark.parametrize("noted", [True, False])
def test_only_a_recorded_peer_that_does_not_end_is_ended(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    monkeypatch.setattr(ground, "ORPHAN_PATIENCE", 0.0)
    Segment.create(settings.segment_name).close()
    script = (
        "import sys, xseg; segment = xseg.Segment.attach(sys.argv[1]);"
        f"port = segment.bind({PORT_MAPPERD}, 'mapperd'); print(flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, settings.segment_name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as peer:
        assert peer.stdout is not None
        assert peer.stdout.readline() == b"\n"
        if noted:
            settings.run_dir.mkdir(parents=True, exist_ok=True)
            record(settings).note(peer.pid)
            ground.create_segment(settings, record(settings)).close()
            assert peer.wait(60) == -signal.SIGKILL
        else:
            with pytest.raises(ground.StartError, match=f"process {peer.pid} has"):
                ground.create_segment(settings, record(settings))
            assert peer.poll() is None
            peer.kill()


def test_a_client_of_the_old_segment_is_let_be(settings: Settings) -> None:
    with Segment.create(settings.segment_name) as old:
        port = old.bind(PORT_DYNAMIC, "client")
        ground.create_segment(settings, record(settings)).close()
        port.unbind()


def test_the_mark_log_keeps_its_size() -> None:
    fd = ground.make_mark_log()
    try:
        assert os.fstat(fd).st_size == ground.MARK_LOG_BYTES
        assert not os.get_inheritable(fd)
        for size in (0, 2 * ground.MARK_LOG_BYTES):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
    finally:
        os.close(fd)
