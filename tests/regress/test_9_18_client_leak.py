# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 18: a client object leaked about 5 KiB per `connect()`."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from pathlib import Path

from tests.helpers.inprocess import MIB, running


def test_a_closed_client_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as instance:
        with instance.connect() as client:
            client.create("v", MIB)

        def use() -> weakref.ref[object]:
            with instance.connect() as client, client.open("v") as volume:
                volume.pwrite(b"x", 0)
                assert volume.pread(1, 0) == b"x"
                return weakref.ref(client)

        use()
        client_of = use()
        gc.collect()
        assert client_of() is None
        tracemalloc.start()
        try:
            use()
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            rounds = 50
            for _ in range(rounds):
                use()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # The instance of the test keeps a little of its own in the same process.
        assert after - before < rounds * 1000
