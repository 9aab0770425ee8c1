# SPDX-License-Identifier: Apache-2.0
"""Whatever a crash left of a volume can be removed, also when the disk is full.

That is how people make space.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.disks import MIB, disk_or_skip
from tests.fault.removal import COMES_BACK, OPERATIONS, every_crash
from tests.helpers.store import Store

#: Left on the disk before it is filled block by block [bytes].
ROOM = 4 * MIB

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["tmpfs", "xfs"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("comes_back", COMES_BACK)
def test_what_a_crash_left_is_removed_on_a_full_disk(
    kind: str, operation: str, comes_back: str, tmp_path: Path
) -> None:
    with disk_or_skip(kind) as disk, Store(tmp_path, disk.path) as store:

        @contextlib.contextmanager
        def full() -> Iterator[None]:
            disk.leave(ROOM)
            disk.take_the_rest()
            yield
            disk.give_back("filler")
            disk.give_back("rest")

        every_crash(store, operation, comes_back, full, may_fail=False)
