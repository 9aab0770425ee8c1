# SPDX-License-Identifier: Apache-2.0
"""Whatever a crash left of a volume can be removed, also when the disk is full.

The store is on a small filesystem.  An operation stops after its 1st, 2nd, ... step
as if its process had died, then the disk is filled to the last block, and a node
removes the volume: that is how people make space.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from archipelago.ids import ObjectId
from archipelago.volume.context import Context
from archipelago.volume.create import create
from archipelago.volume.open import open_volume
from archipelago.volume.remove import remove
from archipelago.volume.rename import rename
from archipelago.volume.resize import resize
from archipelago.volume.snapshot import snapshot
from tests.fault.disks import MIB, disk_or_skip
from tests.helpers.inprocess import BLOCK, SECTOR
from tests.helpers.store import Crashed, Store, content, names, put
from xseg.constants import Op

#: More steps than any of the operations has.
MOST_STEPS = 40
#: Left on the disk before it is filled block by block [bytes].
ROOM = 4 * MIB

OPERATIONS: dict[str, Callable[[Context], object]] = {
    "open": lambda ctx: open_volume(ctx, "v", read_only=False),
    "rename": lambda ctx: rename(ctx, "v", "new"),
    "snapshot": lambda ctx: snapshot(ctx, "v", "s"),
    "shrink": lambda ctx: resize(ctx, "v", BLOCK),
}

pytestmark = pytest.mark.slow


def crash(ctx: Context, operation: Callable[[Context], object], stop_at: int) -> bool:
    """Stop an operation after one of its steps; true if it came to its end before."""
    steps = 0

    def step(op: Op, target: ObjectId) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Crashed

    ctx.store.stepped = step
    ended = False
    with contextlib.suppress(Crashed):
        operation(ctx)
        ended = True
    ctx.store.stepped = None
    return ended


@pytest.mark.parametrize("kind", ["tmpfs", "xfs"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("comes_back", ["itself", "another"])
def test_what_a_crash_left_is_removed_on_a_full_disk(
    kind: str, operation: str, comes_back: str, tmp_path: Path
) -> None:
    with disk_or_skip(kind) as disk, Store(tmp_path, disk.path) as store:
        first = store.node("first")
        create(first, "keeps", 8 * BLOCK, BLOCK)
        put(first, "keeps", b"k" * SECTOR, 0)
        for stop_at in range(1, MOST_STEPS):
            # Who held the volume before is gone, too: it is to be taken over.
            holder, dies = store.node("first"), store.node("dies")
            create(holder, "v", 8 * BLOCK, BLOCK)
            put(holder, "v", b"a" * SECTOR, 0)
            uuid = open_volume(holder, "v", read_only=False).header.uuid
            holder.leases.break_(uuid)
            ended = crash(dies, OPERATIONS[operation], stop_at)

            disk.leave(ROOM)
            disk.take_the_rest()
            comes = store.node("dies" if comes_back == "itself" else "another")
            if comes_back == "another":
                comes.leases.break_(uuid)
            for name in set(names(comes)) - {"keeps"}:
                remove(comes, name)
            comes.reclaimer.run()
            assert names(comes) == ["keeps"], f"stopped after step {stop_at}"
            for name in ("v", "new", "s"):
                assert comes.headers.find(name) is None
            assert content(comes, "keeps", SECTOR) == b"k" * SECTOR
            disk.give_back("filler")
            disk.give_back("rest")
            if ended:
                assert stop_at > 2
                return
        raise AssertionError("it never came to its end")
