# SPDX-License-Identifier: Apache-2.0
"""What all tests share: skips for missing tools, and proof that nothing leaks."""

from __future__ import annotations

import gc
import os
import random
import shutil
from collections.abc import Callable, Iterator

import pytest

import xseg

SEED = int(
    os.environ.get("ARCHIPELAGO_TEST_SEED", "0")
) or random.SystemRandom().getrandbits(32)


def _tools(*names: str) -> Callable[[], str]:
    def check() -> str:
        missing = [name for name in names if shutil.which(name) is None]
        return f"needs {', '.join(missing)}" if missing else ""

    return check


def _root() -> str:
    return "" if os.geteuid() == 0 else "needs root"


def _io_uring() -> str:
    from xseg._native import default_engine

    return "" if default_engine() == "io_uring" else "needs io_uring"


_REQUIREMENTS: dict[str, Callable[[], str]] = {
    "requires_root": _root,
    "requires_io_uring": _io_uring,
    "requires_qemu": _tools("qemu-img", "qemu-io"),
    "requires_nbd": _tools("nbdinfo", "nbdcopy"),
    "requires_fio": _tools("fio"),
    "requires_e2fsprogs": _tools("mke2fs", "e2fsck"),
}


def pytest_report_header() -> str:
    return f"seed: ARCHIPELAGO_TEST_SEED={SEED}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, check in _REQUIREMENTS.items():
        if item.get_closest_marker(name) and (reason := check()):
            pytest.skip(reason)


@pytest.fixture
def rng() -> random.Random:
    """Random numbers that a failed run can repeat, see the report's header."""
    return random.Random(SEED)


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if it leaves a segment, port, request or buffer behind."""
    handles, names = xseg.live_handles(), xseg.segments()
    yield
    if xseg.live_handles() != handles:
        gc.collect()  # what only a cycle keeps is not a leak
    assert xseg.live_handles() == handles
    mine = f"-{os.getpid()}-"
    assert [n for n in xseg.segments() if n not in names and mine in n] == []
