# SPDX-License-Identifier: Apache-2.0
"""Opens a store as a starting instance does, reads and writes every volume."""

from __future__ import annotations

from pathlib import Path

from archipelago.client import Client
from tests.crash.reader import BrokenStore, Found
from tests.helpers.inprocess import running

_STAMP = b"written after the power cut".ljust(512, b".")


def open_store(where: Path) -> dict[str, Found]:
    """Run an instance on ``where/store``.

    Every volume is opened for writing, read, written to, flushed, and opened again: no
    state may need repair, or be one in which work does not go on.

    Returns:
        What each volume held at first.
    """
    home = where / "home"
    home.mkdir()
    with (
        running(home, store=where / "store", engine="threads") as instance,
        instance.connect() as client,
    ):
        found = {info.name: _use(client, info.name) for info in client.list()}
    return found


def _use(client: Client, name: str) -> Found:
    with client.open(name) as volume:
        data = volume.pread(volume.size, 0)
        read_only = volume.read_only
        if read_only:
            return Found(data, read_only)
        stamp = _STAMP[: volume.size]
        volume.pwrite(stamp, 0)
        volume.flush()
    with client.open(name) as volume:
        if volume.pread(volume.size, 0) != stamp + data[len(stamp) :]:
            raise BrokenStore(f"{name} does not hold what was written after the cut")
    return Found(data, read_only)
