# SPDX-License-Identifier: Apache-2.0
"""Nodes whose times of day are apart by more than a lease's life."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from archipelago import LeaseLost
from tests.helpers.cluster import running_cluster
from tests.helpers.preload import NEEDS_PRELOAD
from tests.nodes.clock import build_clock, shifted
from tests.nodes.test_rounds import begin, end
from tests.nodes.test_told import await_loss

MIB = 1 << 20
BLOCK = 4096
HOUR = 3600
#: Rounds of each placement.
ROUNDS = max(1, int(os.environ.get("NODES_ROUNDS", "30")) // 5)

pytestmark = [pytest.mark.slow, *NEEDS_PRELOAD]

_CLOCKS = """
import time
print(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())
"""


def clocks_with(variables: dict[str, str]) -> list[float]:
    said = subprocess.run(
        [sys.executable, "-c", _CLOCKS],
        env=os.environ | variables,
        capture_output=True,
        check=True,
    )
    return [float(word) for word in said.stdout.split()]


def test_only_the_time_of_day_is_shifted(tmp_path: Path) -> None:
    library = build_clock(tmp_path)
    before = clocks_with({})
    ahead = clocks_with(shifted(library, 10 * HOUR))
    behind = clocks_with(shifted(library, -10 * HOUR))
    for shift, got in ((10, ahead), (-10, behind)):
        moved = [(g - b) / HOUR for g, b in zip(got, before, strict=True)]
        assert [round(m) for m in moved] == [shift, 0, 0]


def test_whatever_the_clocks_say_no_old_write_and_no_flushed_byte_lost() -> None:
    runs = [
        begin(*("--rounds", str(ROUNDS), "--placement", placement, clocks))
        for placement, clocks in (
            ("together", "--clocks=2,-2"),
            ("apart", "--clocks=-2,2"),
        )
    ]
    said = [end(run, ROUNDS) for run in runs]
    print(*said, sep="\n")
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)


def test_a_lost_node_whose_clock_ran_ahead_holds_nobody_up(tmp_path: Path) -> None:
    variables = [shifted(build_clock(tmp_path), 10 * HOUR)]
    with running_cluster(2, variables=variables, lease_ttl="60") as cluster:
        a, b = cluster.nodes
        with a.instance.connect() as ours, b.instance.connect() as theirs:
            ours.create("v", MIB)
            volume = ours.open("v")
            volume.pwrite(b"a" * BLOCK, 0)
            volume.flush()
            # Its processes live, as far as another machine can tell.
            a.pause()
            with theirs.open("v") as taken:
                assert taken.pread(BLOCK, 0) == b"a" * BLOCK
                taken.pwrite(b"b" * BLOCK, 0)
                taken.flush()
                a.resume()
                with pytest.raises(LeaseLost):
                    volume.pwrite(b"late", 0)
                    volume.flush()
                assert taken.pread(BLOCK, 0) == b"b" * BLOCK
            with contextlib.suppress(LeaseLost):
                volume.close()


def test_a_lease_that_seems_to_be_over_is_broken_all_the_same(tmp_path: Path) -> None:
    variables = [shifted(build_clock(tmp_path), -10 * HOUR)]
    with running_cluster(2, variables=variables, lease_ttl="600") as cluster:
        a, b = cluster.nodes
        with a.instance.connect() as ours:
            ours.create("v", MIB)
            volume = ours.open("v")
            b.instance.vlmc("unlock", "-f", "v")
            await_loss(volume)
            with contextlib.suppress(LeaseLost):
                volume.close()
