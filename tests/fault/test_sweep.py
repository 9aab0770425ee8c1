# SPDX-License-Identifier: Apache-2.0
"""Each call of the file backend fails once, or from then on as on a full disk.

Operations succeed or say why, other volumes go on, nothing leaks, everything can be
done again afterwards (after a failed sync: after a restart), and what was flushed is
there.  A run takes every so many calls of each kind, from a random one on;
``FAULT_ALL=1`` takes all.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.plan import build_injector, injected
from tests.fault.removal import COMES_BACK, OPERATIONS
from tests.helpers.preload import NEEDS_PRELOAD
from tests.helpers.scratch import scratch

ROOT = Path(__file__).resolve().parents[2]
ALL = os.environ.get("FAULT_ALL") == "1"
#: Rounds of each case, roughly.
ROUNDS = 6

#: engine, kinds of calls, error, how many fail, how many such calls the script makes
CASES = [
    ("threads", "WRITE", "EIO", "once", 50),
    ("threads", "WRITE", "ENOSPC", "once", 50),
    ("threads", "WRITE", "SHORT", "once", 50),
    ("threads", "SYNC", "EIO", "once", 110),
    ("threads", "READ", "EIO", "once", 200),
    ("threads", "READ", "SHORT", "once", 200),
    ("threads", "OPEN", "EIO", "once", 300),
    ("threads", "CREATE,MKDIR,RENAME,LINK", "EIO", "once", 55),
    ("threads", "PUNCH,TRUNCATE,UNLINK", "EIO", "once", 13),
    ("threads", "WRITE,CREATE,MKDIR,LINK", "ENOSPC", "full", 80),
    ("io_uring", "WRITE", "EIO", "once", 50),
    ("io_uring", "WRITE", "SHORT", "once", 50),
    ("io_uring", "SYNC", "EIO", "once", 110),
    ("io_uring", "READ", "EIO", "once", 200),
    ("io_uring", "PUNCH", "EIO", "once", 2),
    ("io_uring", "WRITE,CREATE,MKDIR,LINK", "ENOSPC", "full", 80),
]

pytestmark = [pytest.mark.slow, *NEEDS_PRELOAD]


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_injector(tmp_path_factory.mktemp("injector"))


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch("fault") as where:
        yield where


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split(".")[:2])


def _needs(engine: str) -> None:
    """Skip where a failure of io_uring's calls cannot be arranged."""
    if engine != "io_uring":
        return
    from xseg._native import default_engine

    if default_engine() != "io_uring":
        pytest.skip("needs io_uring")
    if not Path("/usr/include/liburing.h").exists():
        pytest.skip("needs the headers of liburing for the injector")
    if _kernel() < (6, 10):
        pytest.skip("needs Linux 6.10: a no-op with a result of one's choice")


def run(injector: Path, place: Path, program: str, *arguments: str) -> None:
    """Run a program of this directory whose calls on its store may fail."""
    control, store = place / "control", place / "store"
    control.write_bytes(bytes(4096))
    argv = ["-m", f"tests.fault.{program}", str(control), str(store), *arguments]
    print("python", *argv)
    done = subprocess.run(
        [sys.executable, *argv],
        env=dict(os.environ, **injected(injector, store, control)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    print(done.stdout)


@pytest.mark.parametrize(("engine", "kinds", "error", "mode", "calls"), CASES)
def test_every_call_may_fail(
    injector: Path,
    place: Path,
    rng: random.Random,
    engine: str,
    kinds: str,
    error: str,
    mode: str,
    calls: int,
) -> None:
    _needs(engine)
    step = 1 if ALL else max(1, calls // ROUNDS)
    first = 1 + rng.randrange(step)
    run(injector, place, "sweep", engine, kinds, error, mode, str(first), str(step))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("comes_back", COMES_BACK)
def test_what_a_crash_left_is_removed_or_whole_where_nothing_can_be_written(
    injector: Path, place: Path, operation: str, comes_back: str
) -> None:
    run(injector, place, "removal", operation, comes_back)
