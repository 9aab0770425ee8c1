# SPDX-License-Identifier: Apache-2.0
"""Wait for what other processes do, with a limit that only a failure reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PATIENCE", "wait_until"]

#: Longest wait [s].
PATIENCE = 120.0
_PAUSE = 0.05

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str) -> T:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"no {what} in {PATIENCE:.0f} s"
        time.sleep(_PAUSE)
