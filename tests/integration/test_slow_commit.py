# SPDX-License-Identifier: Apache-2.0
"""A header that a dead control half had sent off replaces nothing that came later."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from archipelago.errors import ArchipelagoError
from tests.helpers.cluster import until
from tests.helpers.instance import Instance, running_instance
from tests.helpers.preload import NEEDS_PRELOAD, build
from tests.integration.killing import pids

SECTOR = 4096
#: What a writer has if nothing holds it up [s].
CHANCE = 2.0

pytestmark = [pytest.mark.slow, *NEEDS_PRELOAD]


def snapshot(instance: Instance) -> None:
    with instance.connect() as client, contextlib.suppress(ArchipelagoError):
        client.snapshot("v", "s")  # cut off: it may have happened or not


def test_what_is_flushed_after_a_death_outlives_a_late_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, gate = tmp_path / "gate.so", tmp_path / "gate"
    build(library, [Path(__file__).with_name("gate.c")])
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("GATE", str(gate))
    with running_instance(placement="apart") as instance:
        with instance.connect() as client:
            client.create("v", "8M")
            with client.open("v") as volume:
                volume.pwrite(b"A" * SECTOR, 0)
                volume.flush()

                def write() -> None:
                    volume.pwrite(b"B" * SECTOR, 1 << 20)
                    volume.flush()

                gate.touch()
                changer = threading.Thread(target=snapshot, args=(instance,))
                changer.start()
                until(tmp_path.joinpath("gate.waiting").exists, "a commit under way")
                os.kill(pids(instance)["mapperd"], signal.SIGKILL)
                writer = threading.Thread(target=write)
                writer.start()
                writer.join(CHANCE)
                gate.unlink()
                writer.join()
                changer.join()
                assert volume.pread(SECTOR, 1 << 20) == b"B" * SECTOR
        instance.restart()
        with instance.connect() as client, client.open("v") as volume:
            assert volume.pread(SECTOR, 0) == b"A" * SECTOR
            assert volume.pread(SECTOR, 1 << 20) == b"B" * SECTOR
