# SPDX-License-Identifier: Apache-2.0
"""What clients notice when vlmcd ends and another one takes its place: nothing."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import archipelago
from archipelago import Client, Volume
from archipelago.control import ControlService
from archipelago.ids import lease_id
from archipelago.messenger import Messenger
from archipelago.volume.context import Context
from archipelago.volume.rename import rename
from tests.helpers.inprocess import BLOCK, MIB, Peers
from xseg import Segment
from xseg.constants import PORT_VLMCD, Op, Role
from xseg.testing import unique_name

SOUTH = Role.BLOCKERB | Role.BLOCKERM | Role.MAPPERD


class Apart:
    """An instance whose vlmcd can be exchanged."""

    def __init__(self, segment: Segment, control: ControlService) -> None:
        self.segment = segment
        self.control = control
        self.vlmcd: Peers | None = Peers(segment.name, Role.VLMCD)

    @property
    def ctx(self) -> Context:
        return self.control.context

    def stop_vlmcd(self) -> None:
        if self.vlmcd is not None:
            self.vlmcd.stop()
        self.vlmcd = None

    def start_vlmcd(self) -> None:
        self.vlmcd = Peers(self.segment.name, Role.VLMCD)

    def restart_vlmcd(self) -> None:
        self.stop_vlmcd()
        self.start_vlmcd()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    with contextlib.ExitStack() as stack:
        name = unique_name("client")
        segment = Segment.create(name, requests=1024, heap_bytes=64 * MIB)
        stack.callback(segment.close)
        stack.callback(Segment.destroy, name)
        stack.callback(Peers(name, SOUTH).stop)
        control = ControlService(name, instance_file=tmp_path / "instance")
        control.start()
        stack.callback(control.stop)
        instance = Apart(segment, control)
        stack.callback(instance.stop_vlmcd)
        yield instance


@pytest.fixture
def client(apart: Apart, tmp_path: Path) -> Iterator[Client]:
    with Client(Segment.attach(apart.segment.name), tmp_path) as connected:
        yield connected


@pytest.fixture
def volume(client: Client) -> Iterator[Volume]:
    client.create("v", 16 * MIB, block_size=BLOCK)
    with client.open("v") as opened:
        opened.pwrite(b"before", 0)
        yield opened


def test_a_volume_is_opened_again_and_nothing_is_in_doubt(
    apart: Apart, volume: Volume
) -> None:
    for i in range(3):
        apart.restart_vlmcd()
        assert volume.pread(6, 0) == b"before"
        volume.pwrite(b"%d" % i, BLOCK + i)
        apart.restart_vlmcd()
        volume.flush()
    assert volume.pread(3, BLOCK) == b"012"


def test_a_volume_that_was_given_back_and_taken_again_is_not_in_doubt(
    apart: Apart, volume: Volume
) -> None:
    """However often: changes do, and an instance that restarts more than once."""
    apart.stop_vlmcd()
    ctx = apart.ctx
    uuid = ctx.headers.get("v").uuid
    for _ in range(3):
        ctx.leases.acquire(uuid, "v")
        ctx.leases.release(uuid)
    apart.start_vlmcd()
    volume.pwrite(b"after", BLOCK)
    volume.flush()
    assert volume.pread(6, 0) == b"before"


@pytest.mark.parametrize("why", ["lost", "given up"])
def test_a_volume_that_was_stopped_keeps_what_it_had_answered(
    apart: Apart, volume: Volume, why: str
) -> None:
    """Its vlmcd dies before anybody was told: so nobody may miss anything."""
    ctx = apart.ctx
    uuid = ctx.headers.get("v").uuid
    volume.flush()
    volume.pwrite(b"answered", BLOCK)
    if why == "lost":
        held = dict(ctx.leases.all())[uuid]
        ctx.renewer._lose(uuid, held, "the store does not answer")
    else:
        opened = ctx.table.get("v")
        assert opened is not None
        ctx.give_up(opened, "a test wants it")
    apart.restart_vlmcd()
    volume.flush()
    assert volume.pread(8, BLOCK) == b"answered"


def another_has_had(ctx: Context, uuid: bytes) -> None:
    """Another node takes a volume's lease and gives it back."""
    other = replace(ctx.leases.ask, owner=b"n" * 16, nonce=b"n" * 16)
    granted, lease = ctx.store.acquire(lease_id(uuid), other)
    assert granted
    ctx.store.release(lease_id(uuid), lease)


@pytest.mark.parametrize("how", ["had", "broke"])
@pytest.mark.parametrize("found_by", ["write", "flush"])
def test_a_volume_that_another_node_had_is_in_doubt_once(
    apart: Apart, volume: Volume, found_by: str, how: str
) -> None:
    apart.stop_vlmcd()
    ctx = apart.ctx
    uuid = ctx.headers.get("v").uuid
    if how == "had":
        another_has_had(ctx, uuid)
    else:
        ctx.leases.break_(uuid)
    apart.start_vlmcd()
    if found_by == "write":
        volume.pwrite(b"after", BLOCK)
    with pytest.raises(archipelago.IoError, match="another node had"):
        volume.flush()
    volume.flush()


def test_a_volume_that_was_flushed_is_never_in_doubt(
    apart: Apart, volume: Volume
) -> None:
    volume.flush()
    apart.stop_vlmcd()
    another_has_had(apart.ctx, apart.ctx.headers.get("v").uuid)
    apart.start_vlmcd()
    assert volume.pread(6, 0) == b"before"
    volume.flush()


def test_a_volume_is_found_under_its_new_name(
    apart: Apart, client: Client, volume: Volume
) -> None:
    volume.flush()
    apart.stop_vlmcd()
    rename(apart.ctx, "v", "w")
    apart.start_vlmcd()
    client.create("v", MIB, block_size=BLOCK)
    assert volume.pread(6, 0) == b"before"
    assert volume.name == "w"
    volume.flush()


def test_a_volume_that_was_removed_meanwhile_is_gone(
    apart: Apart, client: Client, volume: Volume
) -> None:
    apart.restart_vlmcd()
    client.remove("v")
    with pytest.raises(archipelago.VolumeNotFound, match='no volume "v" any more'):
        volume.pread(1, 0)
    with pytest.raises(archipelago.VolumeNotFound):
        volume.close()  # what was written cannot be flushed
    assert volume.closed


def test_what_was_answered_is_flushed_by_close(
    apart: Apart, client: Client, volume: Volume
) -> None:
    apart.restart_vlmcd()
    volume.close()
    with client.open("v", read_only=True) as again:
        assert again.pread(6, 0) == b"before"


def test_a_close_over_which_vlmcd_ends_is_no_lost_lease(
    apart: Apart, client: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_handle = client.close_handle

    def close_late(handle: int) -> None:
        apart.restart_vlmcd()
        close_handle(handle)

    monkeypatch.setattr(client, "close_handle", close_late)
    volume.close()
    with client.open("v", read_only=True) as again:
        assert again.pread(6, 0) == b"before"


def test_a_volume_that_is_lost_cannot_be_closed_well(
    apart: Apart, volume: Volume
) -> None:
    ctx = apart.ctx
    ctx.renewer.say_stopped(ctx.headers.get("v").uuid)
    ctx.tell_lost(ctx.headers.get("v").uuid)
    with pytest.raises(archipelago.LeaseLost):
        volume.close()
    assert volume.closed


def test_requests_wait_for_a_vlmcd_that_is_away(
    apart: Apart, client: Client, volume: Volume
) -> None:
    apart.stop_vlmcd()
    done: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: done.append(volume.pread(6, 0))),
        threading.Thread(
            target=lambda: done.append(client.snapshot("v", "s").name.encode())
        ),
    ]
    for thread in threads:
        thread.start()
    apart.start_vlmcd()
    for thread in threads:
        thread.join()
    assert sorted(done) == [b"before", b"s"]


@pytest.mark.parametrize("number", ["EPIPE", "ECANCELED", "EOWNERDEAD"])
def test_only_what_does_no_harm_is_asked_twice(number: str, apart: Apart) -> None:
    """A peer that answers once as if it ended, and is there the second time."""
    result = -getattr(errno, number)
    for persistent, op, twice in (
        (True, Op.INFO, True),
        (True, Op.SNAPSHOT, number != "EOWNERDEAD"),
        (False, Op.INFO, number == "EPIPE"),
    ):
        assert ask_dying(apart, persistent, op, result) == (0 if twice else result)


def ask_dying(apart: Apart, persistent: bool, op: Op, result: int) -> int:
    """Ask a port that answers the first request with `result`, then with 0."""
    apart.stop_vlmcd()
    port = apart.segment.bind(PORT_VLMCD, "dying")
    messenger = Messenger(apart.segment, "test", persistent=persistent)
    replies: list[int] = []
    asker = threading.Thread(
        target=lambda: replies.append(messenger.call(PORT_VLMCD, op).result)
    )
    asker.start()
    answers = [result, 0]
    while not replies and answers:
        rq = port.accept()
        if rq is not None:
            port.complete(rq, answers.pop(0))
        elif asker.is_alive():
            with contextlib.suppress(TimeoutError):
                port.wait(0.01)
        else:
            break
    asker.join()
    messenger.close()
    port.unbind()
    return replies[0]
