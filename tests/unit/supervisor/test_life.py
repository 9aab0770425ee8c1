# SPDX-License-Identifier: Apache-2.0
"""The life of an instance: real processes, started, killed and stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archipelago.settings import ROLES
from tests.helpers.instance import BIN, Instance

pytestmark = pytest.mark.slow

MakeInstance = Callable[..., Instance]
PATIENCE = 60.0


def wait_until(check: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := check()):
        assert time.monotonic() < deadline, f"never came: {what}"
    return value


def peers(instance: Instance) -> dict[str, Any]:
    return {peer["name"]: peer for peer in instance.status()["peers"]}


def wait_gone(pid: int) -> None:
    """Wait for a process that is no child of ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(PATIENCE * 1000), f"pid {pid} does not end"
    os.close(fd)


def serves(instance: Instance, name: str) -> None:
    """Write to a volume through everything there is."""
    with instance.connect() as client:
        client.create(name, "8M")
        with client.open(name) as volume:
            volume.pwrite(b"abc" * 4096, 4095)
            volume.flush()
            assert volume.pread(3, 4095) == b"abc"


def test_start_status_stop(instance: Instance) -> None:
    status = instance.status()
    assert status["running"] is True
    assert status["placement"] == instance.settings["placement"]
    assert status["backend"] == "file"
    assert status["engine"] in ("io_uring", "threads")
    assert status["nbd"] == [str(instance.home / "run" / "nbd.sock")]
    assert [peer["name"] for peer in status["peers"]] == list(ROLES)
    for peer in status["peers"]:
        assert peer["state"] == "running"
        assert set(peer) == {
            "name", "state", "pid", "placement", "uptime", "ops", "errors",
            "queue_depth", "restarts",
        }  # fmt: skip
    pids = {peer["pid"] for peer in status["peers"]}
    assert len(pids) == (1 if status["placement"] == "together" else len(ROLES))
    serves(instance, "v")
    assert peers(instance)["vlmcd"]["ops"] > 0
    again = instance.command("archipelago", "start")
    assert again.returncode == 5
    assert f"already running (pid {status['pid']})" in again.stderr
    instance.archipelago("stop")
    for pid in (status["pid"], *pids):
        wait_gone(pid)
    assert instance.status()["running"] is False
    assert [p["state"] for p in instance.status()["peers"]] == ["stopped"] * 4
    instance.archipelago("status", exit_code=8)
    instance.archipelago("stop", exit_code=8)
    instance.archipelago("stop", "vlmcd", exit_code=8)
    instance.archipelago("restart", "vlmcd", exit_code=8)


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_peer_is_restarted(make_instance: MakeInstance, role: str) -> None:
    instance = make_instance(placement="apart")
    instance.start()
    before = peers(instance)
    os.kill(before[role]["pid"], signal.SIGKILL)
    after = wait_until(
        lambda: (
            now
            if (now := peers(instance))[role]["restarts"] == 1
            and now[role]["state"] == "running"
            else None
        ),
        f"{role} running again",
    )
    for name in ROLES:
        same = after[name]["pid"] == before[name]["pid"]
        assert same == (name != role)
    serves(instance, "v")


def test_the_one_process_of_together_is_restarted(make_instance: MakeInstance) -> None:
    instance = make_instance(placement="together")
    instance.start()
    serves(instance, "before")
    for restarts in (1, 2, 3):
        os.kill(peers(instance)["mapperd"]["pid"], signal.SIGKILL)

        def again(count: int = restarts) -> bool:
            return all(
                peer["restarts"] == count and peer["state"] == "running"
                for peer in peers(instance).values()
            )

        wait_until(again, f"restart {restarts}")
    with instance.connect() as client, client.open("before") as volume:
        assert volume.pread(3, 4095) == b"abc"
    serves(instance, "after")


@pytest.mark.parametrize("role", ROLES)
def test_one_peer_stops_and_starts(instance: Instance, role: str) -> None:
    supervisor = instance.status()["pid"]
    instance.archipelago("stop", role)
    now = peers(instance)
    assert {name: peer["state"] for name, peer in now.items()} == {
        name: "stopped" if name == role else "running" for name in ROLES
    }
    instance.archipelago("status", role, exit_code=8)
    instance.archipelago("status")
    instance.archipelago("stop", role, exit_code=8)
    if role == "mapperd":
        lost = instance.command("vlmc", "list")
        assert lost.returncode == 8
        assert '"archipelago start mapperd"' in lost.stderr
        assert lost.stderr.count("\n") == 1
    instance.archipelago("start", role)
    instance.archipelago("start", role)
    instance.archipelago("status", role)
    assert instance.status()["pid"] == supervisor
    serves(instance, "v")


#: A client that keeps a volume open and some shared memory, until it is killed.
HOLDER = """
import sys, time, archipelago
client = archipelago.connect()
volume = client.open("v")
buffers = [client.segment.alloc(4 << 20) for _ in range(4)]
print("open", flush=True)
time.sleep(3600)
"""


def test_what_a_killed_client_held_is_let_go(instance: Instance) -> None:
    serves(instance, "v")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=instance.env, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
        instance.vlmc("remove", "v", exit_code=5)
        assert json.loads(instance.vlmc("info", "v", "--json"))["lease"] is not None
        used = segment_of(instance)["heap_used_bytes"]
        holder.kill()
    wait_until(
        lambda: json.loads(instance.vlmc("info", "v", "--json"))["lease"] is None,
        "v closed",
    )
    assert segment_of(instance)["heap_used_bytes"] <= used - (16 << 20)
    assert all(peer["restarts"] == 0 for peer in peers(instance).values())
    instance.vlmc("remove", "v")


def segment_of(instance: Instance) -> dict[str, Any]:
    status = instance.command("xseg", "status", "--json", instance.status()["segment"])
    (segment,) = json.loads(status.stdout)["segments"]
    assert isinstance(segment, dict)
    return segment


def test_restart_keeps_sockets_and_segment(instance: Instance) -> None:
    before = instance.status()
    inode = (instance.home / "run" / "nbd.sock").stat().st_ino
    serves(instance, "v")
    with instance.connect() as client:
        instance.archipelago("restart")
        instance.archipelago("restart", "vlmcd")
        with client.open("v") as volume:
            assert volume.pread(3, 4095) == b"abc"
    after = instance.status()
    assert after["pid"] == before["pid"]
    assert (instance.home / "run" / "nbd.sock").stat().st_ino == inode
    old = {peer["pid"] for peer in before["peers"]}
    new = {peer["pid"] for peer in after["peers"]}
    assert not old & new


def test_restart_applies_new_settings(make_instance: MakeInstance) -> None:
    instance = make_instance()
    instance.start()
    first = instance.status()["pid"]
    instance.archipelago("restart", "--engine", "threads")
    status = instance.status()
    assert (status["pid"], status["engine"]) == (first, "threads")
    instance.archipelago("restart", "vlmcd", "--placement", "apart", exit_code=2)
    instance.vlmc("create", "v", "--size", "8M")
    instance.vlmc("open", "v")
    refused = instance.command("archipelago", "restart", "--placement", "apart")
    assert refused.returncode == 5
    assert "v (held by 'vlmc open')" in refused.stderr
    assert instance.status()["placement"] == "together"
    instance.archipelago("restart", "-f", "--placement", "apart")
    status = instance.status()
    assert status["placement"] == "apart"
    assert status["pid"] != first


def test_restart_starts_what_does_not_run(make_instance: MakeInstance) -> None:
    instance = make_instance()
    instance.archipelago("restart")
    assert instance.status()["running"]


def test_stop_refuses_while_volumes_are_open(instance: Instance) -> None:
    instance.vlmc("create", "held", "--size", "8M")
    instance.vlmc("create", "used", "--size", "8M")
    instance.vlmc("open", "held")
    with instance.connect() as client, client.open("used"):
        for args in (("stop",), ("stop", "vlmcd")):
            refused = instance.command("archipelago", *args)
            assert refused.returncode == 5
            assert "2 open volumes" in refused.stderr
            assert "held (held by 'vlmc open')" in refused.stderr
            assert "used" in refused.stderr
            assert refused.stderr.count("\n") == 1
    assert all(peer["state"] == "running" for peer in peers(instance).values())
    instance.vlmc("close", "held")
    instance.archipelago("stop")
    assert not instance.status()["running"]


def test_two_homes_at_once(make_instance: MakeInstance) -> None:
    one, two = make_instance(), make_instance(placement="apart")
    one.start()
    two.start()
    assert one.status()["segment"] != two.status()["segment"]
    serves(one, "mine")
    assert json.loads(two.vlmc("list", "--json")) == {"volumes": []}
    one.stop()
    serves(two, "mine")


def test_two_starts_at_once(make_instance: MakeInstance) -> None:
    instance = make_instance()
    starts = [
        subprocess.Popen(
            [str(BIN / "archipelago"), "start"],
            env=instance.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for start in starts:
        start.communicate(timeout=PATIENCE)
    assert sorted(start.returncode for start in starts) == [0, 5, 5, 5]
    serves(instance, "v")


def test_a_dead_supervisor_takes_its_peers_along(instance: Instance) -> None:
    serves(instance, "v")
    status = instance.status()
    os.kill(status["pid"], signal.SIGKILL)
    wait_gone(status["pid"])
    # At once, while the peers may still be ending.
    instance.archipelago("status", exit_code=8)
    instance.start()
    for peer in status["peers"]:
        wait_gone(peer["pid"])
    with instance.connect() as client, client.open("v") as volume:
        assert volume.pread(3, 4095) == b"abc"
    serves(instance, "w")


def test_everything_killed_at_once(instance: Instance) -> None:
    serves(instance, "v")
    status = instance.status()
    pids = {status["pid"], *(peer["pid"] for peer in status["peers"])}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_gone(pid)
    instance.start()
    with instance.connect() as client, client.open("v") as volume:
        assert volume.pread(3, 4095) == b"abc"


def test_sigterm_ends_in_good_order(instance: Instance) -> None:
    status = instance.status()
    os.kill(status["pid"], signal.SIGTERM)
    wait_gone(status["pid"])
    assert not (instance.home / "run" / "supervisor.pid").exists()
    assert instance.status()["running"] is False


def test_foreground(make_instance: MakeInstance) -> None:
    instance = make_instance()
    with subprocess.Popen(
        [str(BIN / "archipelago"), "start", "--foreground", "--json"],
        env=instance.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            text += daemon.stdout.readline()
        assert json.loads(text)["pid"] == daemon.pid == instance.status()["pid"]
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(PATIENCE) == 0


@pytest.mark.parametrize("foreground", [False, True])
def test_nothing_is_imported_from_where_the_administrator_stands(
    make_instance: MakeInstance, tmp_path: Path, foreground: bool
) -> None:
    instance = make_instance()
    for name in ("logging", "archipelago", "argparse"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    with subprocess.Popen(
        [str(BIN / "archipelago"), "start", *["--foreground"] * foreground],
        env=instance.env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as start:
        assert start.stdout is not None
        assert start.stdout.readline().startswith(b"archipelago is running")
        serves(instance, "v")
        instance.archipelago("restart")
        instance.stop()


# Starts that fail


def refused(instance: Instance, *args: str, exit_code: int = 1) -> str:
    """Start in vain; nothing may be left running."""
    done = instance.command("archipelago", "start", *args)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert instance.status()["running"] is False
    return done.stderr


@pytest.mark.parametrize("placement", ["together", "apart"])
def test_a_store_that_cannot_be_used(
    make_instance: MakeInstance, placement: str
) -> None:
    instance = make_instance(placement=placement)
    (instance.home / "store").mkdir()
    (instance.home / "store" / "maps").write_text("not a directory")
    message = refused(instance, exit_code=2)
    assert f"maps_path = '{instance.home}/store/maps'" in message
    assert "a file is in its place" in message
    (instance.home / "store" / "maps").unlink()
    instance.start()
    instance.stop()
    (instance.home / "store" / "maps" / "format").write_text("something else\n")
    message = refused(instance, exit_code=9)
    assert f"{instance.home}/store/maps/format" in message
    assert "Errno" not in message


def test_a_socket_that_is_taken(make_instance: MakeInstance) -> None:
    instance = make_instance()
    path = instance.home / "nbd"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        message = refused(instance, "-o", f"nbd.socket={path}")
        assert f"another process listens on {path} already" in message
    # Its owner is gone, so the socket is of no use to anybody.
    instance.archipelago("start", "-o", f"nbd.socket={path}")
    instance.stop()
    path.write_text("a file of somebody's")
    message = refused(instance, "-o", f"nbd.socket={path}")
    assert f"{path} exists and is no socket" in message
    message = refused(instance, "-o", f"nbd.socket={path}/nowhere/nbd")
    assert f"{path}/nowhere/nbd: Not a directory; nbd.socket" in message
    assert path.read_text() == "a file of somebody's"


def test_tcp_on_loopback(make_instance: MakeInstance) -> None:
    instance = make_instance()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ("-o", "nbd.listen=127.0.0.1", "-o", f"nbd.port={port}")
        message = refused(instance, *options)
        assert f"NBD: 127.0.0.1 port {port}: Address already in use; nbd." in message
    instance.archipelago("start", *options)
    assert instance.status()["nbd"][1] == f"127.0.0.1:{port}"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        assert client.recv(8) == b"NBDMAGIC"


def test_a_segment_that_does_not_fit(make_instance: MakeInstance) -> None:
    instance = make_instance()
    space = os.statvfs("/dev/shm")
    if space.f_blocks * space.f_frsize >= 60 << 30:
        pytest.skip("/dev/shm holds every segment")
    message = refused(instance, "-o", "segment.heap=64G", exit_code=7)
    assert "heap of 65536 MiB" in message
    assert "segment.heap" in message


def test_deep_homes_work(make_instance: MakeInstance) -> None:
    outer = make_instance()
    home = outer.home / ("d" * 60) / ("e" * 60)
    home.mkdir(parents=True)
    deep = Instance(home)
    started = deep.command("archipelago", "start")
    try:
        assert started.returncode == 0, started.stderr
        assert "107 bytes" in started.stderr
        address = Path(deep.status()["nbd"][0])
        assert address.parent != home / "run"
        assert address.parent.stat().st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(address))
            assert client.recv(8) == b"NBDMAGIC"
    finally:
        deep.stop()
    address.parent.rmdir()


def test_the_block_size_is_the_instances_not_the_clients(
    make_instance: MakeInstance,
) -> None:
    instance = make_instance()
    instance.archipelago("start", "-o", "block_size=64K")
    instance.vlmc("create", "v", "--size", "1M")
    assert json.loads(instance.vlmc("info", "v", "--json"))["block_size"] == 64 << 10
