# SPDX-License-Identifier: Apache-2.0
"""Room in the segment: a client waits for its turn while others hold all of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from archipelago.errors import BackendUnavailable
from xseg import Buffer, Segment
from xseg.errors import SegmentFull

__all__ = ["no_room", "take_buffer"]

#: First and longest pause between two tries [s].
_PAUSE_FIRST = 0.0005
_PAUSE_MOST = 0.02


def take_buffer(
    segment: Segment,
    size: int,
    patience: float,
    wanted: Callable[[], bool] = lambda: True,
) -> Buffer:
    """Take a buffer; wait while others hold all of that size.

    Args:
        segment: where.
        size: 1 to `BUFFER_MAX_BYTES` [bytes].
        patience: how long to wait at most [s].
        wanted: asked now and then; once it is false, waiting ends.

    Raises:
        BackendUnavailable: none has become free.
    """
    try:
        return segment.alloc(size)
    except SegmentFull:
        pass
    started = time.monotonic()
    pause = _PAUSE_FIRST
    while time.monotonic() - started < patience and wanted():
        time.sleep(pause)
        pause = min(2 * pause, _PAUSE_MOST)
        try:
            return segment.alloc(size)
        except SegmentFull:
            continue
    raise no_room(segment.name)


def no_room(segment: str) -> BackendUnavailable:
    """The error for a segment that stays full."""
    return BackendUnavailable(
        f"segment {segment} has no room for a request: others use all of it; try again "
        "later, or give it more (segment.heap and segment.requests)"
    )
