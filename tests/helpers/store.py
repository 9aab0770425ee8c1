# SPDX-License-Identifier: Apache-2.0
"""A store and the control halves that work on it, inside the test process.

Control halves are called, not served: so a test stops one between any two of its steps,
and starts the next.  What vlmcd would do to a volume, `put` and `content` do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from archipelago.control import ControlService
from archipelago.ids import ObjectId
from archipelago.volume.context import Context
from archipelago.volume.listing import list_volumes
from archipelago.volume.open import close_volume, open_volume
from archipelago.volume.resize import sector_ceil
from tests.helpers.inprocess import ALL, MIB, Peers
from xseg import Segment
from xseg.closing import Closing
from xseg.constants import ObjectKind, Op
from xseg.testing import unique_name


class Crashed(BaseException):
    """Stands for the end of the process; nothing catches it by accident."""


class Store(Closing):
    """A store that outlives the nodes on it.

    Args:
        home: directory of the nodes' homes.
        path: directory of the store; None keeps it in memory.
    """

    def __init__(self, home: Path, path: Path | None = None) -> None:
        self._home = home
        self._name = unique_name("store")
        self._segment = Segment.create(
            self._name, ports=256, requests=1024, heap_bytes=64 * MIB
        )
        self._peers = Peers(self._name, ALL, path)
        self._services: list[ControlService] = []

    def node(self, name: str = "one") -> Context:
        """A control half that has just started; of one name twice, the same run."""
        home = self._home / name
        home.mkdir(exist_ok=True)
        service = ControlService(
            self._name,
            instance_file=home / "instance",
            host=name,
            nonce=name.encode().ljust(16, b"."),
        )
        service.context.presences.begin()
        self._services.append(service)
        return service.context

    def close(self) -> None:
        """End all nodes and the store."""
        for service in self._services:
            service.context.messenger.close()
            service.context.messenger.segment.close()
        self._services.clear()
        if not self._segment.closed:
            self._peers.stop()
            Segment.destroy(self._name)
            self._segment.close()


def die(ctx: Context) -> NoReturn:
    """End a node: from now on it asks for nothing.

    Raises:
        Crashed: now, and whenever it would send something.
    """

    def gone(*_: Any, **__: Any) -> Any:
        raise Crashed

    ctx.messenger.send = gone  # type: ignore[method-assign]
    ctx.messenger.send_many = gone  # type: ignore[method-assign]
    raise Crashed


def crash(ctx: Context, operation: Callable[[Context], object], stop_at: int) -> bool:
    """Let a node die after one of the steps of an operation.

    Args:
        ctx: of the node.
        operation: what it does.
        stop_at: the step, a change of the store; the first is 1.

    Returns:
        True if the operation came to its end before.
    """
    steps = 0

    def step(op: Op, target: ObjectId) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            die(ctx)

    ctx.store.stepped = step
    ended = False
    with contextlib.suppress(Crashed):
        operation(ctx)
        ended = True
    ctx.store.stepped = None
    return ended


def put(ctx: Context, name: str, data: bytes, offset: int) -> None:
    """Write whole sectors as vlmcd would, durably."""
    opened = open_volume(ctx, name, read_only=False)
    extent = ObjectId(
        ObjectKind.EXTENT,
        opened.header.uuid + opened.header.epoch.to_bytes(8, "little") + bytes(8),
    )
    ctx.store.write(extent, offset, data, durable=True)
    ctx.maps.mark(opened.handle, offset, len(data))
    close_volume(ctx, name)


def content(ctx: Context, name: str, size: int) -> bytes:
    """Read a volume as vlmcd would."""
    opened = open_volume(ctx, name, read_only=True)
    whole = sector_ceil(size)
    data = bytearray(whole)
    for run in ctx.maps.runs(opened.handle, 0, whole):
        if run.kind:
            kind = ObjectKind.CONTENT if run.kind == 1 else ObjectKind.EXTENT
            piece = ctx.store.read(ObjectId(kind, run.id), run.object_off, run.size)
            data[run.offset : run.offset + run.size] = piece
    close_volume(ctx, name)
    return bytes(data[:size])


def names(ctx: Context) -> list[str]:
    """The volumes that a node lists."""
    return [info.name for info in list_volumes(ctx)[0]]
