# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 9: removing a volume whose clients leave, stay, or are cut off."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator

import pytest

from archipelago import ArchipelagoError, Client, VolumeBusy
from tests.helpers.instance import Instance, running_instance
from tests.integration.nbdwire import Command, Connection


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance(backend="mem") as running:
        yield running


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


def nbd(client: Client, name: str) -> Connection:
    return Connection(str(client.settings.nbd_socket), name)


def test_a_client_that_just_left_does_not_make_it_busy(client: Client) -> None:
    for round_ in range(40):
        name = f"job{round_}"
        client.create(name, "64M")
        connection = nbd(client, name)
        connection.send(Command.WRITE, 1, 0, 65536, b"x" * 65536)
        connection.close()
        client.remove(name)
    assert client.list() == []


def test_clients_are_named(instance: Instance, client: Client) -> None:
    client.create("named", "64M")
    assert client.users("named") == []
    connection = nbd(client, "named")
    with client.open("named", read_only=True):
        told = json.loads(instance.vlmc("info", "named", "--json"))["clients"]
        listed = json.loads(instance.vlmc("list", "--json"))["volumes"][0]["clients"]
        assert listed == told
        kinds = {(c["client"], c["pid"], c["read_only"]) for c in told}
        assert kinds == {
            ("nbd", os.getpid(), False),
            ("client-open", os.getpid(), True),
        }
        assert all(c["since"].endswith("Z") for c in told)
    with pytest.raises(VolumeBusy, match=rf"nbd \(pid {os.getpid()}.*--wait.*--force"):
        client.remove("named")
    connection.close()
    client.remove("named")


def test_force_cuts_clients_off(client: Client) -> None:
    client.create("cut", "64M")
    connection = nbd(client, "cut")
    volume = client.open("cut")
    volume.pwrite(b"x", 0)
    client.remove("cut", force=True)
    assert not client.exists("cut")
    with pytest.raises(ArchipelagoError):
        volume.pread(1, 0)
    with pytest.raises(ArchipelagoError):
        volume.close()  # what it wrote was never flushed
    connection.send(Command.READ, 1, 0, 4096)
    assert connection.receive_reply().error == 5  # EIO
    connection.close()
    client.create("cut", "64M")  # the name is free again
    client.remove("cut")


def test_wait_waits_for_the_last_client(instance: Instance, client: Client) -> None:
    client.create("slow", "64M")
    volume = client.open("slow")
    waiting = threading.Thread(target=instance.vlmc, args=("rm", "--wait", "slow"))
    waiting.start()
    with pytest.raises(VolumeBusy):
        client.remove("slow")  # it took a while, and the other one waits still
    assert waiting.is_alive()
    volume.close()
    waiting.join()
    assert not client.exists("slow")
