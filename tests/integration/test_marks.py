# SPDX-License-Identifier: Apache-2.0
"""Writes that were answered and not flushed, when all peers and their client die."""

from __future__ import annotations

import os
import random
import select
import signal
from collections.abc import Callable

import pytest

from tests.helpers.instance import Instance
from tests.integration.killing import all_run, await_end, kill, pids

pytestmark = pytest.mark.slow

SECTOR = 4096


def write_and_die(instance: Instance, name: str, rng: random.Random) -> None:
    """Write without a flush; when it is answered, writer and peers are killed."""
    reading, writing = os.pipe()
    writer = os.fork()
    if writer == 0:
        try:
            with instance.connect() as client, client.open(name) as volume:
                volume.pwrite(b"a" * SECTOR, 0)
                volume.flush()
                volume.pwrite(b"c" * SECTOR, 0)
                volume.pwrite(b"b" * 2 * SECTOR, 2 * SECTOR)
                volume.zero(3 * SECTOR, SECTOR)
                os.write(writing, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert select.select([reading], [], [], 60)[0] and os.read(reading, 1)
    finally:
        os.close(reading)
        # Stopped first: it must not come back and flush.
        os.kill(writer, signal.SIGSTOP)
        victims = set(pids(instance).values())
        kill(victims, rng)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    for pid in victims:
        await_end(pid)
    all_run(instance)


def check(instance: Instance, name: str) -> None:
    with instance.connect() as client, client.open(name) as volume:
        read = volume.pread(4 * SECTOR, 0)
    assert [read[i * SECTOR : i * SECTOR + 1] for i in range(4)] == [
        b"c",
        b"\0",
        b"b",
        b"\0",
    ]


def opened(instance: Instance, name: str) -> str:
    return name


def renamed(instance: Instance, name: str) -> str:
    instance.vlmc("rename", name, f"{name}-new")
    return f"{name}-new"


def resized(instance: Instance, name: str) -> str:
    instance.vlmc("resize", name, "--size", "128M")
    return name


def snapshot(instance: Instance, name: str) -> str:
    instance.vlmc("snapshot", name, f"{name}-snap")
    return f"{name}-snap"


@pytest.mark.parametrize("act", [opened, renamed, resized, snapshot])
def test_answered_writes_outlive_all_peers(
    instance: Instance,
    rng: random.Random,
    act: Callable[[Instance, str], str],
) -> None:
    name = f"v-{act.__name__}"
    instance.vlmc("create", name, "--size", "64M")
    write_and_die(instance, name, rng)
    name = act(instance, name)
    check(instance, name)
    check(instance, name)  # closed and opened again
    kill(set(pids(instance).values()), rng)
    all_run(instance)
    check(instance, name)
