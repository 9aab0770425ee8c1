# SPDX-License-Identifier: Apache-2.0
"""One heartbeat for an instance, and no second process with its identity."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archipelago.errors import ConfigError, LeaseLost
from archipelago.volume.incarnation import NS, incarnation, is_over, may_live
from archipelago.volume.presence import Presences
from tests.helpers.inprocess import Running, running

A, B = b"a" * 16, b"b" * 16


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, store=tmp_path) as started:
        yield started


def _presences(instance: Running, uuid: bytes, ttl: float = 60.0) -> Presences:
    return Presences(instance.ctx.store, uuid, incarnation(ttl, "elsewhere"))


def test_a_second_process_with_one_identity_is_refused_by_name(
    instance: Running,
) -> None:
    first, second = _presences(instance, A), _presences(instance, A)
    first.begin()
    first.begin()  # also a renewal
    with pytest.raises(ConfigError) as caught:
        second.begin()
    text = str(caught.value)
    assert f"pid {first.ask.pid} on elsewhere, since " in text
    assert A.hex() in text
    assert text.endswith("archipelago start --new-identity")
    with pytest.raises(LeaseLost):
        second.prove()
    second.end()  # not its own
    first.prove()
    first.end()
    second.begin()
    with pytest.raises(LeaseLost):
        first.prove()


def test_an_earlier_run_that_cannot_be_seen_is_waited_for(instance: Running) -> None:
    """Its pid namespace is another: only its time says that it is over."""
    ask = incarnation(0.3, "elsewhere")
    earlier = Presences(instance.ctx.store, A, replace(ask, pid_ns=ask.pid_ns + 1))
    earlier.begin()
    began = earlier.get(A)
    assert began is not None
    _presences(instance, A).begin()
    assert time.time_ns() >= began.expires_ns


def test_the_living_are_listed_with_the_generation_that_they_use(
    instance: Running,
) -> None:
    presences = instance.ctx.presences
    assert [each.instance for each in presences.living()] == [presences.instance]
    assert presences.others() == set()
    a, b = _presences(instance, A), _presences(instance, B)
    a.begin()
    b.begin()
    a.report_generation(7)
    presences.report_generation(9)
    seen = {each.instance: each.generation for each in presences.living()}
    assert seen == {presences.instance: 9, A: 7, B: 0}
    instance.ctx.renewer.renew_all()  # a renewal keeps it
    own = presences.get(presences.instance)
    assert own is not None
    assert own.generation == 9
    b.end()
    assert presences.others() == {A}


def test_what_may_live_is_judged_generously_and_what_is_over_is_not() -> None:
    now = time.time_ns()
    presence = replace(incarnation(10.0), expires_ns=now + 10 * NS)
    assert not is_over(presence)
    assert may_live(presence)
    late = replace(presence, expires_ns=now - NS)
    assert is_over(late)
    assert may_live(late)
    assert not may_live(replace(presence, expires_ns=now - 61 * NS))
    gone = replace(presence, pid_start=presence.pid_start + 1)
    assert is_over(gone)
    assert not may_live(gone)
    for unknown in (
        replace(gone, pid_ns=gone.pid_ns + 1),
        replace(gone, boot_id=bytes(15) + b"m"),
        replace(gone, boot_id=bytes(16)),
    ):
        assert not is_over(unknown)
        assert may_live(unknown)
    ahead = replace(presence, expires_ns=now + 71 * NS)
    assert is_over(ahead)
    assert may_live(ahead)
    assert is_over(replace(presence, expires_ns=0))


def test_a_damaged_presence_counts_as_alive_and_its_instance_mends_it(
    instance: Running,
) -> None:
    presences, a = instance.ctx.presences, _presences(instance, A)
    a.begin()
    (instance.home / "maps" / "presence" / A.hex()).write_bytes(b"\xff" * 8192)
    seen = {each.instance: each.presence for each in presences.living()}
    assert seen[A] is None
    assert presences.others() == {A}
    a.begin()
    assert a.get(A) is not None
