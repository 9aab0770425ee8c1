# SPDX-License-Identifier: Apache-2.0
"""Sizes: as people write them, and which ones a volume and its blocks may have."""

from __future__ import annotations

from archipelago.errors import UsageError
from xseg.constants import BLOCK_MAX_BYTES, BLOCK_MIN_BYTES
from xseg.units import format_size, parse_size

__all__ = [
    "SIZE_MAX_BYTES",
    "check_block_size",
    "check_size",
    "format_size",
    "parse_size",
]

#: Largest volume [bytes]: 64 PiB.
SIZE_MAX_BYTES = 64 << 50


def check_size(size: object) -> int:
    """Accept a volume's size [bytes]."""
    if not isinstance(size, int) or isinstance(size, bool):
        raise UsageError(f"a size is a whole number of bytes, not {size!r}")
    if not 0 < size <= SIZE_MAX_BYTES:
        raise UsageError(
            f"a volume cannot have {size} bytes: choose from 1 byte to "
            f"{format_size(SIZE_MAX_BYTES)}"
        )
    return size


def check_block_size(block_size: object) -> int:
    """Accept a block size [bytes]."""
    if (
        not isinstance(block_size, int)
        or isinstance(block_size, bool)
        or not BLOCK_MIN_BYTES <= block_size <= BLOCK_MAX_BYTES
        or block_size & (block_size - 1)
    ):
        raise UsageError(
            f"a block cannot have {block_size!r} bytes: choose a power of two from "
            f"{format_size(BLOCK_MIN_BYTES)} to {format_size(BLOCK_MAX_BYTES)}"
        )
    return block_size
