# SPDX-License-Identifier: Apache-2.0
"""A reader on a third node, whose open file is replaced under it by a take-over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cluster import Node, running_cluster

MIB = 1 << 20
BLOCK = 4096

pytestmark = pytest.mark.slow


def nameless_extents(node: Node) -> list[Path]:
    """Extents that processes of a node have open and that have lost their name."""
    return [
        fd
        for pid in node.processes()
        for fd in Path(f"/proc/{pid}/fd").iterdir()
        if (to := str(fd.readlink())).endswith("(deleted)") and "/extents/" in to
    ]


def test_a_late_write_does_not_reach_who_read_before_the_take_over() -> None:
    with running_cluster(3, lease_ttl="2") as cluster:
        a, b, c = cluster.nodes
        with c.instance.connect() as theirs, b.instance.connect() as next_:
            with a.instance.connect() as ours:
                ours.create("v", MIB)
                volume = ours.open("v")
                volume.pwrite(b"a" * BLOCK, 0)
                volume.flush()
                with theirs.open("v", read_only=True) as reader:
                    assert reader.pread(BLOCK, 0) == b"a" * BLOCK
                a.pause()
                next_.unlock("v", force=True)
                with next_.open("v") as taken:
                    assert taken.pread(BLOCK, 0) == b"a" * BLOCK
                    # What the paused node would write to the file it still has.
                    late = nameless_extents(a)
                    assert late, "the take-over replaced no file"
                    for path in late:
                        with path.open("r+b", buffering=0) as file:
                            file.write(b"late")
                    with theirs.open("v", read_only=True) as reader:
                        assert reader.pread(BLOCK, 0) == b"a" * BLOCK
                a.resume()
