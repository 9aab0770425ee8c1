# SPDX-License-Identifier: Apache-2.0
"""The control service: whatever is sent to it, it answers and goes on."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import archipelago
from archipelago import Client
from archipelago.control.instance import instance_uuid
from archipelago.errors import ConfigError
from archipelago.ids import lease_id
from archipelago.messenger import Messenger
from archipelago.volume import snapshot as snapshot_module
from archipelago.volume.context import Limits
from tests.helpers.inprocess import BLOCK, MIB, SECTOR, Running, running
from xseg.constants import PORT_CONTROL, Flag, Op
from xseg.payload import VolumeInfo


def ask(
    client: Client, op: Op, name: str | None, raw: bytes, room: int = 65536
) -> tuple[int, dict[str, Any], VolumeInfo]:
    """Ask with JSON; OPEN and CLOSE take none."""
    reply = client.messenger.call(
        PORT_CONTROL, op, name=name, data=raw, room=room, size=len(raw),
        take=lambda rq, _: rq.arg(0),
    )  # fmt: skip
    answer = json.loads(reply.data) if reply.data else {}
    return reply.result, answer, VolumeInfo.unpack(reply.inline)


def open_(
    client: Client, name: str, *, flags: int = 0, uuid: bytes = b"", fence: int = 0
) -> tuple[int, VolumeInfo]:
    reply = client.messenger.call(
        PORT_CONTROL, Op.OPEN, name=name, flags=flags, args=(fence,),
        target=lease_id(uuid) if uuid else None,
    )  # fmt: skip
    return reply.result, VolumeInfo.unpack(reply.inline)


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b"5",
        b'{"size": "ten"}',
        b'{"size": true}',
        b'{"size": 1e30}',
        b'{"size": -5}',
        b"{}",
        b'{"size": 4096, "block_size": 3}',
        b'{"size": 4096, "layer": "x"}',
        b'{"size": 4096, "layer": "00000000-0000-0000-0000-000000000001"}',
        b"[" * 100000,
    ],
)
def test_malformed_arguments_are_refused_in_words(client: Client, raw: bytes) -> None:
    result, answer, _ = ask(client, Op.CREATE, "v", raw, room=1 << 18)
    assert result == -errno.EINVAL
    assert answer["msgid"] == "usage"
    assert answer["message"]
    assert client.list() == []


def test_a_name_is_needed_and_ops_are_known(client: Client) -> None:
    assert ask(client, Op.CREATE, None, b'{"size": 4096}')[0] == -errno.EINVAL
    assert ask(client, Op.HASH, "v", b"{}")[0] == -errno.EINVAL
    assert ask(client, Op.LIST, None, b'{"limit": 0}')[0] == -errno.EINVAL
    assert ask(client, Op.PING, None, b"{}")[0] == 0


def test_an_answer_without_room_is_an_error_not_a_lie(client: Client) -> None:
    client.create("v", MIB)
    result, answer, _ = ask(client, Op.INFO, "v", b"{}", room=100)
    assert (result, answer) == (-errno.ENOBUFS, {})
    result, answer, _ = ask(client, Op.INFO, "w", b"{}", room=2)
    assert (result, answer) == (-errno.ENOENT, {})


def test_the_open_volume_comes_inline(client: Client) -> None:
    client.create("v", MIB, block_size=BLOCK)
    result, record = open_(client, "v")
    assert result == 0
    assert record.inline_valid
    assert (record.name, record.size_bytes, record.epoch) == ("v", MIB, 1)
    assert (record.block_bytes, record.fence) == (BLOCK, 1)
    assert record.map_handle
    again = open_(client, "v", flags=Flag.RDONLY)[1]
    assert again.map_handle == record.map_handle
    record = ask(client, Op.SNAPSHOT, "v", b'{"snapshot": "s"}')[2]
    assert record.epoch == 2
    record = ask(client, Op.TRUNCATE, "v", b'{"size": 5000}')[2]
    assert (record.epoch, record.size_bytes) == (3, 5000)
    record = ask(client, Op.RENAME, "v", b'{"name": "w"}')[2]
    assert (record.name, record.inline_valid) == ("w", True)
    assert not ask(client, Op.CLOSE, "w", b"{}")[2].inline_valid
    assert ask(client, Op.CLOSE, "w", b"{}")[0] == 0


def test_a_volume_is_found_again_after_a_rename_that_nobody_told_of(
    client: Client,
) -> None:
    client.create("v", MIB, block_size=BLOCK)
    record = open_(client, "v")[1]

    def again() -> VolumeInfo:
        return open_(client, "v", uuid=record.uuid, fence=record.fence)[1]

    assert again().name == "v"
    assert ask(client, Op.RENAME, "v", b'{"name": "w"}')[0] == 0
    found = again()
    assert (found.name, found.uuid, found.fence) == ("w", record.uuid, record.fence)
    client.create("v", MIB, block_size=BLOCK)  # another one, under the old name
    assert again().name == "w"
    unknown = open_(client, "v", uuid=bytes(16))[1]
    assert unknown.uuid != record.uuid
    for name in ("v", "w"):
        assert ask(client, Op.CLOSE, name, b"{}")[0] == 0


def test_a_failed_snapshot_tells_of_the_new_epoch(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create("v", MIB, block_size=BLOCK)
    with client.open("v") as volume:
        volume.pwrite(b"x" * SECTOR, 0)

        def fail(*_: object) -> None:
            raise archipelago.NoSpace("the store is full")

        monkeypatch.setattr(snapshot_module, "put", fail)
        with pytest.raises(archipelago.NoSpace):
            client.snapshot("v", "s")
        monkeypatch.undo()
        assert not client.exists("s")
        volume.pwrite(b"y" * SECTOR, SECTOR)
        client.snapshot("v", "s")
        volume.pwrite(b"z" * SECTOR, 0)
        assert volume.pread(2 * SECTOR, 0) == b"z" * SECTOR + b"y" * SECTOR
    with client.open("s") as snapshot:
        assert snapshot.pread(2 * SECTOR, 0) == b"x" * SECTOR + b"y" * SECTOR


def test_what_nobody_thought_of_is_an_error_and_the_service_goes_on(
    instance: Running, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create("v", MIB)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(instance.ctx.headers, "find", fail)
    with pytest.raises(archipelago.IoError, match="its log says how"):
        client.info("v")
    monkeypatch.undo()
    assert client.info("v").size == MIB


def test_a_damaged_header_is_reported_and_hides_nothing_else(
    instance: Running, client: Client
) -> None:
    client.create("good", MIB)
    client.create("bad", MIB)
    from archipelago.ids import header_id

    raw = bytearray(instance.ctx.store.read(header_id("bad"), 0, 65536))
    raw[60] ^= 1
    instance.ctx.store.delete(header_id("bad"))
    instance.ctx.store.create(header_id("bad"), raw)
    with pytest.raises(archipelago.MapCorrupt) as caught:
        client.info("bad")
    assert caught.value.exit_code == 9
    listed = {v.name: v for v in client.list()}
    assert list(listed) == ["bad", "good"]
    assert listed["bad"].kind == "damaged" and listed["bad"].damaged
    assert listed["good"].damaged is None


def test_operations_on_many_volumes_at_once(client: Client) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            name = f"v{number}"
            client.create(name, MIB, block_size=BLOCK)
            with client.open(name) as volume:
                for i in range(5):
                    volume.pwrite(bytes([number, i]), 0)
                    client.snapshot(name, f"{name}-{i}")
            for i in range(5):
                with client.open(f"{name}-{i}") as snapshot:
                    assert snapshot.pread(2, 0) == bytes([number, i])
                client.remove(f"{name}-{i}")
            client.rename(name, f"w{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [v.name for v in client.list()] == [f"w{n}" for n in range(6)]


def test_a_long_journal_is_frozen_and_merged_in_the_background(tmp_path: Path) -> None:
    limits = Limits(checkpoint_bytes=200, stack_soft=3)
    with running(tmp_path, limits=limits) as instance, instance.connect() as client:
        client.create("v", 8 * MIB, block_size=BLOCK)
        expected = bytearray(8 * MIB)
        with client.open("v") as volume:
            for i in range(60):
                offset = (i * 7 % 100) * 2 * SECTOR
                volume.pwrite(bytes([i + 1]) * SECTOR, offset)
                expected[offset : offset + SECTOR] = bytes([i + 1]) * SECTOR
                volume.flush()
                if i % 3 == 0:
                    instance.control.maintenance.round()
            info = client.info("v", usage=False)
            assert info.epoch == 1
            assert 1 <= info.depth <= 4
            assert volume.pread(len(expected), 0) == expected
        with client.open("v") as volume:
            assert volume.pread(len(expected), 0) == expected


def test_volumes_of_a_vlmcd_that_is_gone_are_not_in_the_way(
    instance: Running, client: Client
) -> None:
    client.create("v", MIB)
    assert open_(client, "v")[0] == 0
    with pytest.raises(archipelago.VolumeBusy):
        client.remove("v")
    opened = instance.ctx.table.get("v")
    assert opened is not None
    opened.opener = (1, 1)
    client.remove("v")
    assert instance.ctx.table.get("v") is None


def test_the_instance_keeps_its_uuid(tmp_path: Path) -> None:
    path = tmp_path / "state" / "instance"
    first = instance_uuid(path)
    assert instance_uuid(path) == first
    assert [p.name for p in path.parent.iterdir()] == ["instance"]
    path.write_text("not a uuid")
    with pytest.raises(ConfigError, match="instance"):
        instance_uuid(path)
    assert instance_uuid(None) != instance_uuid(None)


def test_a_client_without_an_instance_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(archipelago.NotRunning, match="archipelago start") as caught:
        archipelago.connect(tmp_path)
    assert caught.value.exit_code == 8


def test_a_peer_that_is_away_is_waited_for_only_so_long(instance: Running) -> None:
    with pytest.raises(archipelago.NotRunning, match="vlmcd does not run"):
        messenger = Messenger(instance.segment, "test", patience=0.01)
        try:
            messenger.call(7, Op.PING)
        finally:
            messenger.close()
