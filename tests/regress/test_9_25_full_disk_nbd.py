# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 25: a full disk does not keep NBD clients from mending it."""

from __future__ import annotations

import pytest

from tests.fault.disks import MIB, disk_or_skip
from tests.helpers.instance import running_instance
from tests.integration.nbdwire import Command, Connection, Violation

SIZE = 8 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_volume_opens_to_read_and_discard_on_a_full_disk(kind: str) -> None:
    with disk_or_skip(kind) as disk:
        data, maps = disk.path / "data", disk.path / "maps"
        data.mkdir()
        maps.mkdir()
        with (
            running_instance(data_path=str(data), maps_path=str(maps)) as instance,
            instance.connect() as client,
        ):
            client.create("v", "1G", block_size=64 << 10)
            with client.open("v") as volume:
                volume.pwrite(b"x" * SIZE, 0)
                volume.flush()
            disk.take_the_rest()
            assert disk.free_bytes < MIB
            connection = Connection(str(client.settings.nbd_socket), "v")
            connection.send(Command.READ, 1, 0, 4096)
            assert connection.receive_reply().error == 0
            assert connection.receive_data(4096) == b"x" * 4096
            connection.send(Command.TRIM, 2, 0, SIZE)
            assert connection.receive_reply().error == 0
            connection.send(Command.FLUSH, 3, 0, 0)
            assert connection.receive_reply().error == 0
            connection.disconnect()
            assert disk.free_bytes > SIZE // 2


def test_a_refused_export_says_why() -> None:
    with running_instance(backend="mem") as instance, instance.connect() as client:
        path = str(client.settings.nbd_socket)
        with pytest.raises(Violation, match='no volume or snapshot "none"'):
            Connection(path, "none")
        logs = "\n".join(p.read_text() for p in instance.home.rglob("*.log"))
        assert 'cannot open volume "none"' in logs
