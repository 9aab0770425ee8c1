# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 30: nonsense in the live segment left an instance dead for good."""

from __future__ import annotations

import mmap
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import archipelago
from archipelago.errors import ArchipelagoError
from archipelago.paths import segment_name
from tests.helpers.instance import Instance, running_instance
from xseg import Segment

MIB = 1 << 20
DATA = bytes(range(256)) * (MIB // 256)
#: At most so long until an instance has mended itself [s].
PATIENCE = 90.0
#: Of struct xseg_header, in docs/format/segment.md.
PORTS_AT, HEAP_OFF_AT = 4096, 104


@pytest.fixture
def instance() -> Iterator[Instance]:
    with running_instance() as running:
        yield running


def scribble(instance: Instance, seed: int, nr_words: int = 4000) -> None:
    """Write random words between the header and the heap."""
    rng = random.Random(seed)
    path = Path("/dev/shm") / segment_name(instance.home)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        heap_off = struct.unpack_from("<Q", memory, HEAP_OFF_AT)[0]
        for _ in range(nr_words):
            at = rng.randrange(PORTS_AT // 8, heap_off // 8) * 8
            struct.pack_into("<Q", memory, at, rng.getrandbits(64))


def fill(instance: Instance) -> None:
    with archipelago.connect(instance.home) as client:
        client.create("v", 8 * MIB)
        with client.open("v") as volume:
            volume.pwrite(DATA, 0)
            volume.flush()


def check(instance: Instance) -> None:
    with archipelago.connect(instance.home) as client, client.open("v") as volume:
        assert bytes(volume.pread(MIB, 0)) == DATA
    with Segment.attach(segment_name(instance.home)) as segment:
        assert segment.check() == []


def uuid(instance: Instance) -> str:
    with Segment.attach(segment_name(instance.home)) as segment:
        return segment.statistics().uuid


def test_restart_makes_an_unsound_segment_anew(instance: Instance) -> None:
    fill(instance)
    before = uuid(instance)
    scribble(instance, seed=1)
    instance.archipelago("restart")
    assert uuid(instance) != before
    check(instance)


def test_an_instance_mends_itself_and_clients_find_it(instance: Instance) -> None:
    fill(instance)
    before = uuid(instance)
    with archipelago.connect(instance.home) as client:
        assert [volume.name for volume in client.list()] == ["v"]
        scribble(instance, seed=2)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                names = [volume.name for volume in client.list()]
                if client.messenger.segment.statistics().uuid != before:
                    break
            except ArchipelagoError:
                pass  # requests fail while it lasts
            assert time.monotonic() < deadline, instance.logs()
        assert names == ["v"]
    check(instance)
