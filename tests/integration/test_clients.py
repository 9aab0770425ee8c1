# SPDX-License-Identifier: Apache-2.0
"""A Python client of the segment notices nothing of kill -9 but a pause."""

from __future__ import annotations

import random

import pytest

from tests.helpers.instance import Instance
from tests.integration.killing import MIB, ROUNDS, all_run, kill, new_volume, survivors

pytestmark = pytest.mark.slow

SECTOR = 4096


def test_no_call_fails(apart: Instance, rng: random.Random) -> None:
    name = new_volume(apart, "python", MIB)
    written: dict[int, bytes] = {}
    with apart.connect() as client, client.open(name) as volume:
        for number in range(ROUNDS):
            living = survivors(apart)
            victims = rng.sample(sorted(living), rng.randint(1, len(living)))
            moment = rng.randrange(100)
            for step in range(150):
                sector = rng.randrange(MIB // SECTOR)
                data = f"{number}.{step}.".encode().ljust(SECTOR, b"x")
                volume.pwrite(data, sector * SECTOR)
                written[sector] = data
                if step == moment:
                    kill({living[victim] for victim in victims}, rng)
                if step % 16 == 0:
                    volume.flush()
            for sector, data in written.items():
                assert volume.pread(SECTOR, sector * SECTOR) == data
    all_run(apart)
