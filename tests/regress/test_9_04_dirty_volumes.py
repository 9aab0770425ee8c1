# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 04: many dirty volumes never turn into "too many open files".

The peers raise their soft limit of descriptors when they start.  What a blocker does at
the cap is shown by tests/c/blocker (store.c, failed_syncs.c).
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.instance import running_instance

SECTOR = 4096
#: Of a process, and volumes that are dirty at once: each has an open file.
SOFT_LIMIT = 128
VOLUMES = 160


@contextlib.contextmanager
def soft_limit(limit: int) -> Iterator[None]:
    """Processes that are started meanwhile may open only so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_dirty_volumes_than_the_soft_limit(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with soft_limit(SOFT_LIMIT):
            instance = stack.enter_context(
                running_instance(
                    backend="file",
                    data_path=str(tmp_path / "data"),
                    maps_path=str(tmp_path / "maps"),
                )
            )
        client = stack.enter_context(instance.connect())
        client.create("base", size=1 << 20)
        client.snapshot("base", "image")
        assert not client.clone("image", [f"v{i}" for i in range(VOLUMES)]).failed
        volumes = [client.open(f"v{i}") for i in range(VOLUMES)]
        for i, volume in enumerate(volumes):
            volume.pwrite(bytes([i]) * SECTOR, 0)
        for volume in volumes:
            volume.close()
        for i in range(VOLUMES):
            with client.open(f"v{i}", read_only=True) as volume:
                assert volume.pread(SECTOR, 0) == bytes([i]) * SECTOR
