# SPDX-License-Identifier: Apache-2.0
"""The model decides: a byte array for each volume against the whole stack.

Hypothesis makes up sequences of reads, writes of any alignment, discards, zeros,
flushes, snapshots, clones of clones, removals of parents, resizes both ways, renames
and restarts, runs them on a real instance, and compares every byte; a failing sequence
is shrunk and its seed printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import archipelago
from tests.helpers.instance import Instance, running_instance

BLOCK = 64 << 10
SECTOR = 4096
MAX_SIZE = 6 * BLOCK
STEPS = int(os.environ.get("MODEL_STEPS", "40"))
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "12"))

#: Sizes and places that sit on, beside and across the borders that matter.
_edges = sorted(
    {
        max(0, base + delta)
        for base in (0, SECTOR, BLOCK, 2 * BLOCK, 3 * BLOCK)
        for delta in (-513, -512, -1, 0, 1, 511, 512, 4095, 4096)
    }
)
places = st.one_of(st.sampled_from(_edges), st.integers(0, MAX_SIZE))
lengths = st.one_of(
    st.sampled_from([1, 511, 512, 4095, 4096, 4097, 8192, BLOCK, BLOCK + 1, 2 * BLOCK]),
    st.integers(1, 3 * BLOCK),
)
sizes = st.one_of(
    st.sampled_from([1, 512, SECTOR, SECTOR + 1, BLOCK - 1, BLOCK, 3 * BLOCK + 700]),
    st.integers(1, MAX_SIZE),
)


@dataclass
class Expected:
    """What one volume must hold."""

    data: bytearray
    read_only: bool


class VolumeMachine(RuleBasedStateMachine):
    """Random operations on a running instance; `instance` is set by the test."""

    instance: Instance
    serial = 0

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Expected] = {}
        self.open: dict[str, archipelago.Volume] = {}
        self.client = self.instance.connect()

    names = Bundle("names")

    # ---- helpers ----

    def fresh(self, kind: str) -> str:
        type(self).serial += 1
        return f"{kind}-{self.serial}"

    def handle(self, name: str) -> archipelago.Volume:
        if name not in self.open:
            self.open[name] = self.client.open(name)
        return self.open[name]

    def shut(self, name: str) -> None:
        volume = self.open.pop(name, None)
        if volume:
            volume.close()

    def clip(self, name: str, offset: int, size: int) -> tuple[int, int]:
        end = len(self.model[name].data)
        offset = min(offset, end - 1)
        return offset, max(1, min(size, end - offset))

    # ---- what exists ----

    @rule(target=names, size=sizes)
    def create(self, size: int) -> str:
        name = self.fresh("vol")
        info = self.client.create(name, size=size, block_size=BLOCK)
        assert info.size == size
        assert not info.read_only
        self.model[name] = Expected(bytearray(size), False)
        return name

    @rule(target=names, name=names)
    def snapshot(self, name: str) -> str:
        if name not in self.model:
            return name
        snap = self.fresh("snap")
        if self.model[name].read_only:
            with pytest.raises(archipelago.ArchipelagoError):
                self.client.snapshot(name, snap)
            return name
        self.client.snapshot(name, snap)
        self.model[snap] = Expected(bytearray(self.model[name].data), True)
        return snap

    @rule(target=names, name=names, grow=st.integers(0, BLOCK))
    def clone(self, name: str, grow: int) -> str:
        expected = self.model.get(name)
        if expected is None or not expected.read_only:
            return name
        clone = self.fresh("clone")
        size = len(expected.data) + grow
        self.client.create(clone, snap=name, size=size)
        self.model[clone] = Expected(expected.data + bytearray(grow), False)
        return clone

    @rule(name=consumes(names))
    def remove(self, name: str) -> None:
        if name not in self.model:
            return
        self.shut(name)
        self.client.remove(name)
        del self.model[name]
        assert not self.client.exists(name)

    @rule(target=names, name=consumes(names))
    def rename(self, name: str) -> str:
        if name not in self.model:
            return name
        new = self.fresh("name")
        self.client.rename(name, new)
        self.model[new] = self.model.pop(name)
        if name in self.open:
            self.open[new] = self.open.pop(name)
        return new

    @rule(name=names, size=sizes)
    def resize(self, name: str, size: int) -> None:
        expected = self.model.get(name)
        if expected is None or expected.read_only:
            return
        self.shut(name)
        self.client.resize(name, size)
        del expected.data[size:]
        expected.data.extend(bytes(size - len(expected.data)))

    # ---- what they hold ----

    @rule(name=names, offset=places, size=lengths, seed=st.integers(0, 255))
    def write(self, name: str, offset: int, size: int, seed: int) -> None:
        expected = self.model.get(name)
        if expected is None:
            return
        offset, size = self.clip(name, offset, size)
        data = bytes((seed + i * 7 + (i >> 8)) & 255 for i in range(size))
        if expected.read_only:
            with pytest.raises(archipelago.ReadOnlySnapshot):
                self.handle(name).pwrite(data, offset)
            return
        assert self.handle(name).pwrite(data, offset) == size
        expected.data[offset : offset + size] = data

    @rule(name=names, offset=places, size=lengths, discard=st.booleans())
    def zero(self, name: str, offset: int, size: int, discard: bool) -> None:
        expected = self.model.get(name)
        if expected is None or expected.read_only:
            return
        offset, size = self.clip(name, offset, size)
        volume = self.handle(name)
        (volume.discard if discard else volume.zero)(offset, size)
        expected.data[offset : offset + size] = bytes(size)

    @rule(name=names, offset=places, size=lengths)
    def read(self, name: str, offset: int, size: int) -> None:
        if name not in self.model:
            return
        offset, size = self.clip(name, offset, size)
        got = self.handle(name).pread(size, offset)
        assert got == self.model[name].data[offset : offset + size]

    @rule(name=names)
    def flush(self, name: str) -> None:
        if name in self.model:
            self.handle(name).flush()

    @rule(name=names)
    def close(self, name: str) -> None:
        self.shut(name)

    @precondition(
        lambda self: self.model and self.instance.settings["backend"] == "file"
    )
    @rule(chance=st.integers(0, 7))
    def restart(self, chance: int) -> None:
        if chance:
            return  # a restart costs as much as a hundred other steps
        for name in list(self.open):
            self.shut(name)
        self.client.close()
        self.instance.restart()
        self.client = self.instance.connect()

    @invariant()
    def one_volume_is_what_it_should_be(self) -> None:
        if self.model:
            name = next(reversed(self.model))
            data = self.model[name].data
            assert self.handle(name).pread(len(data), 0) == data

    def teardown(self) -> None:
        try:
            listed = {v.name for v in self.client.list()}
            assert set(self.model) <= listed
            for name, expected in self.model.items():
                got = self.handle(name).pread(len(expected.data), 0)
                assert got == expected.data, f"{name} differs at the end"
        finally:
            for name in list(self.open):
                self.shut(name)
            for volume in self.client.list():
                self.client.remove(volume.name)
            self.client.close()


@pytest.fixture(
    scope="module",
    params=[
        ("together", "io_uring", "file", "false"),
        ("together", "threads", "file", "false"),
        ("together", "io_uring", "file", "true"),
        ("apart", "io_uring", "file", "false"),
        ("apart", "threads", "file", "false"),
        ("together", "threads", "mem", "false"),
    ],
    ids=lambda p: "-".join(p[:3]) + ("-direct" if p[3] == "true" else ""),
)
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    placement, engine, backend, direct = request.param
    with running_instance(
        placement=placement, engine=engine, backend=backend, direct=direct
    ) as running:
        yield running


@pytest.mark.slow
def test_volumes_hold_what_was_written(instance: Instance) -> None:
    machine = type("Machine", (VolumeMachine,), {"instance": instance})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
