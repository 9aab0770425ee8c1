# SPDX-License-Identifier: Apache-2.0
"""A whole instance inside the test process: native peers, control half, clients.

The store is in memory, so nothing is left behind; everything else is the real thing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archipelago.client import Client
from archipelago.control import ControlService
from archipelago.volume.context import Context, Limits
from xseg import Segment
from xseg._native import Native
from xseg.constants import Role
from xseg.testing import unique_name

ALL = Role.BLOCKERB | Role.BLOCKERM | Role.MAPPERD | Role.VLMCD
MIB = 1 << 20
BLOCK = 64 << 10
SECTOR = 4096


class Peers:
    """Native peers on a thread of their own."""

    def __init__(
        self,
        segment: str,
        roles: Role,
        path: Path | None = None,
        engine: str = "auto",
    ) -> None:
        if path is None:
            self._native = Native(segment, roles, backend="mem")
        else:
            self._native = Native(
                segment,
                roles,
                backend="file",
                data_path=path / "data",
                maps_path=path / "maps",
                engine=engine,
            )
        self._thread = threading.Thread(target=self._native.run, name="reactor")
        self._thread.start()

    def stop(self) -> None:
        self._native.stop()
        self._thread.join()
        self._native.close()


@dataclass
class Running:
    """One instance at work."""

    segment: Segment
    control: ControlService
    home: Path

    @property
    def ctx(self) -> Context:
        return self.control.context

    def connect(self) -> Client:
        return Client(Segment.attach(self.segment.name), self.home)


@contextlib.contextmanager
def running(
    home: Path,
    *,
    limits: Limits | None = None,
    store: Path | None = None,
    lease_ttl: float = 10.0,
    host: str = "testhost",
    engine: str = "auto",
    nonce: bytes | None = None,
) -> Iterator[Running]:
    """Run an instance; with `store` on files there, otherwise in memory."""
    name = unique_name("control")
    segment = Segment.create(name, requests=1024, heap_bytes=64 * MIB)
    try:
        peers = Peers(name, ALL, store, engine)
        try:
            control = ControlService(
                name,
                instance_file=home / "instance",
                lease_ttl=lease_ttl,
                host=host,
                limits=limits,
                nonce=nonce,
            )
            control.start()
            try:
                yield Running(segment, control, home)
            finally:
                control.stop()
        finally:
            peers.stop()
    finally:
        Segment.destroy(name)
        segment.close()
