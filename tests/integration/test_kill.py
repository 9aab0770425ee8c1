# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a peer under load: what was flushed is there, and work goes on.

The supervisor starts the peer again and keeps the sockets open meanwhile.  A client may
see an error, opens its volume anew, and finds every flushed byte.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator

import pytest

import archipelago
from tests.helpers.instance import Instance, running_instance

SECTOR = 4096
SECTORS = 512
ROUNDS = int(os.environ.get("KILL_ROUNDS", "3"))


@pytest.fixture(scope="module", params=["together", "apart"])
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    with running_instance(placement=request.param, backend="file") as running:
        yield running


def peers(instance: Instance) -> dict[str, int]:
    """Names and process numbers of the peers that run."""
    status = instance.status()
    return {p["name"]: p["pid"] for p in status["peers"] if p["state"] == "running"}


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that the product brings about; it does so within seconds."""
    for _ in range(400):
        if condition():
            return
    raise AssertionError(f"never happened: {what}")


def reopen(
    instance: Instance, name: str
) -> tuple[archipelago.Client, archipelago.Volume]:
    """Connect and open, as often as it takes."""
    for attempt in range(200):
        client = None
        try:
            client = instance.connect()
            return client, client.open(name)
        except (archipelago.ArchipelagoError, OSError):
            if client is not None:
                client.close()
            if attempt == 199:
                raise
            instance.status()
    raise AssertionError("not reached")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["blockerb", "blockerm", "mapperd", "vlmcd"])
def test_flushed_data_survives_kill_9(instance: Instance, victim: str) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    name = f"v-{victim}"
    with instance.connect() as client:
        client.create(name, size=SECTORS * SECTOR, block_size=64 << 10)
    flushed = [0] * SECTORS
    number = 0
    for _ in range(ROUNDS):
        client, volume = reopen(instance, name)
        maybe: dict[int, set[int]] = {}
        kill_at = rng.randrange(5, 60)
        try:
            for step in range(kill_at + 150):
                number += 1
                sector = rng.randrange(SECTORS)
                maybe.setdefault(sector, {flushed[sector]}).add(number)
                volume.pwrite(number.to_bytes(8, "little") * 512, sector * SECTOR)
                if step % 8 == 7:
                    volume.flush()
                    for at in maybe:
                        data = volume.pread(8, at * SECTOR)
                        flushed[at] = int.from_bytes(data, "little")
                    maybe.clear()
                if step == kill_at:
                    os.kill(peers(instance)[victim], signal.SIGKILL)
        except (archipelago.ArchipelagoError, OSError):
            pass
        finally:
            with contextlib.suppress(archipelago.ArchipelagoError, OSError):
                volume.close()
            client.close()
        until(lambda: len(peers(instance)) == 4, "all peers run again")
        client, volume = reopen(instance, name)
        with client, volume:
            for sector in range(SECTORS):
                data = volume.pread(SECTOR, sector * SECTOR)
                got = int.from_bytes(data[:8], "little")
                assert data == got.to_bytes(8, "little") * 512, "a torn sector"
                assert got in maybe.get(sector, {flushed[sector]})
                flushed[sector] = got
