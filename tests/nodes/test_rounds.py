# SPDX-License-Identifier: Apache-2.0
"""Random rounds of pause, kill, break and hand-over, in both placements at once.

``NODES_ROUNDS=1000 pytest tests/nodes/test_rounds.py`` runs more of them; a failure
prints the command that repeats it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("NODES_ROUNDS", "30"))
#: What one round takes at most; ends a driver that hangs [s].
SECONDS_EACH = 30

pytestmark = pytest.mark.slow


def begin(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.nodes", *args],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(run: subprocess.Popen[str], rounds: int) -> str:
    try:
        return run.communicate(timeout=60 + SECONDS_EACH * rounds)[0]
    except subprocess.TimeoutExpired:
        run.terminate()
        return run.communicate()[0] + "\nit hangs"


def test_no_write_of_an_old_fence_and_no_flushed_byte_lost() -> None:
    rounds = max(1, ROUNDS // 2)
    runs = [
        begin("--rounds", str(rounds), "--placement", placement, "--nodes", nodes)
        for placement, nodes in (("together", "3"), ("apart", "2"))
    ]
    said = [end(run, rounds) for run in runs]
    print(*said, sep="\n")
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)


@pytest.mark.parametrize(
    "event", ["forge_late_write", "forge_lost_write", "forge_lost_lease"]
)
def test_a_forged_violation_is_found(event: str, tmp_path: Path) -> None:
    # No machine stands still for a good part of such a lease.
    run = begin(
        *("--rounds", "1", "--events", event, "--folder", str(tmp_path)),
        *("--lease-ttl", "120"),
    )
    said = end(run, 1)
    assert run.returncode == 1, said
    words = {
        "forge_late_write": "shows tenure 0 of node 77",
        "forge_lost_write": "shows zeros; allowed: tenure",
        "forge_lost_lease": "lost the volume, and nobody took it",
    }
    assert words[event] in said
