# SPDX-License-Identifier: Apache-2.0
"""Processes with another time of day (``clock.c``)."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.preload import build

_SOURCE = Path(__file__).with_suffix(".c")


def build_clock(into: Path) -> Path:
    """Compile the library.

    Args:
        into: directory to make it in.

    Returns:
        The library for LD_PRELOAD.
    """
    library = into / "clock.so"
    build(library, [_SOURCE])
    return library


def shifted(library: Path, seconds: int) -> dict[str, str]:
    """The environment of a process whose time of day is so far ahead [s]."""
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(seconds)}
