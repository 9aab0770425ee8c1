# SPDX-License-Identifier: Apache-2.0
"""Removing what a crash left of a volume where nothing can be stored any more.

    python -m tests.fault.removal CONTROL ROOT OPERATION COMES_BACK

runs under the library of `plan.build_injector`, with the store in ROOT: there not even
what has its space can be written again, as on a full filesystem that copies on write.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from archipelago.errors import NoSpace
from archipelago.volume.context import Context
from archipelago.volume.create import create
from archipelago.volume.open import open_volume
from archipelago.volume.remove import remove
from archipelago.volume.rename import rename
from archipelago.volume.resize import resize
from archipelago.volume.snapshot import snapshot
from tests.fault.plan import Kind, Plan
from tests.helpers.inprocess import BLOCK, SECTOR
from tests.helpers.store import Store, content, crash, names, put

#: More steps than any of the operations has.
MOST_STEPS = 40

OPERATIONS: dict[str, Callable[[Context], object]] = {
    "open": lambda ctx: open_volume(ctx, "v", read_only=False),
    "rename": lambda ctx: rename(ctx, "v", "new"),
    "snapshot": lambda ctx: snapshot(ctx, "v", "s"),
    "shrink": lambda ctx: resize(ctx, "v", BLOCK),
}
#: The node that removes: the one whose process died, or another one.
COMES_BACK = ("itself", "another")
_NEEDS_SPACE = (Kind.WRITE, Kind.CREATE, Kind.MKDIR, Kind.RENAME, Kind.LINK)


def every_crash(
    store: Store,
    operation: str,
    comes_back: str,
    full: Callable[[], contextlib.AbstractContextManager[object]],
    *,
    may_fail: bool,
) -> int:
    """Stop an operation after each of its steps; each time remove what is there.

    Args:
        store: an empty one.
        operation: one of OPERATIONS.
        comes_back: one of COMES_BACK.
        full: while it is entered nothing can be stored.
        may_fail: a removal may be refused; then the volume is as it was.

    Returns:
        How many removals were refused.
    """
    refused = 0
    first = store.node("first")
    create(first, "keeps", 8 * BLOCK, BLOCK)
    put(first, "keeps", b"k" * SECTOR, 0)
    for stop_at in range(1, MOST_STEPS):
        # The holder is gone, too: the volume is to be taken over.
        holder, dies = store.node("first"), store.node("dies")
        create(holder, "v", 8 * BLOCK, BLOCK)
        put(holder, "v", b"a" * SECTOR, 0)
        uuid = open_volume(holder, "v", read_only=False).header.uuid
        holder.leases.break_(uuid)
        ended = crash(dies, OPERATIONS[operation], stop_at)
        comes = store.node("dies" if comes_back == "itself" else "another")
        if comes_back == "another":
            comes.leases.break_(uuid)
        with full():
            for name in _others(comes):
                try:
                    remove(comes, name)
                except NoSpace:
                    if not may_fail:
                        raise
                    refused += 1
        for name in _others(comes):
            assert content(comes, name, SECTOR) == b"a" * SECTOR
            remove(comes, name)
        comes.reclaimer.run()
        assert names(comes) == ["keeps"], f"stopped after step {stop_at}"
        for name in ("v", "new", "s"):
            assert comes.headers.find(name) is None
        assert content(comes, "keeps", SECTOR) == b"k" * SECTOR
        if ended:
            assert stop_at > 2
            return refused
    raise AssertionError("it never came to its end")


def _others(ctx: Context) -> list[str]:
    return [name for name in names(ctx) if name != "keeps"]


def main(argv: list[str]) -> None:
    """Run all rounds of one operation; print how many removals were refused."""
    control, root, operation, comes_back = argv
    logging.disable(logging.CRITICAL)
    with (
        Plan(Path(control)) as plan,
        tempfile.TemporaryDirectory() as home,
        Store(Path(home), Path(root)) as store,
    ):

        @contextlib.contextmanager
        def full() -> Iterator[None]:
            plan.fail(_NEEDS_SPACE, errno.ENOSPC, 1, None)
            yield
            struck = plan.counts().struck
            plan.clear()
            assert struck, "nothing was to be written"

        refused = every_crash(store, operation, comes_back, full, may_fail=True)
    print(f"{operation}, {comes_back}: {refused} removals were refused")


if __name__ == "__main__":
    main(sys.argv[1:])
