# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["KIB", "MIB", "GIB", "TIB", "PIB", "format_size", "parse_size"]

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
PIB: Final = 1 << 50

_UNITS: Final = {
    "b": 1,
    "": MIB,
    "k": KIB,
    "m": MIB,
    "g": GIB,
    "t": TIB,
    "p": PIB,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "pb": 1000**5,
}
_SIZE: Final = re.compile(r"\s*(\d+)(?:\.(\d{1,18}))?\s*([a-z]*)\s*", re.ASCII)
_LIMIT: Final = 1 << 63


def parse_size(text: str | int, *, default_unit: int = MIB) -> int:
    """Read a size with a suffix.

    K, M, G, T and P (also Ki, KiB, ...) are powers of 1024, KB, MB, ... of 1000; B is
    bytes.  A bare number counts `default_unit`.

    Args:
        text: "10G", "1.5 TiB", "4096B", "512", or a number as by itself.
        default_unit: What a bare number counts [bytes].

    Returns:
        The size [bytes].

    Raises:
        ValueError: Not a size, no whole number of bytes, or 2**63 or more.
    """
    if isinstance(text, int):
        text = str(text)
    match = _SIZE.fullmatch(text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write 10G, 512M or 4096B")
    whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3)
    if unit[1:] in ("i", "ib") and unit[0] != "b":
        unit = unit[0]
    if unit not in _UNITS:
        raise ValueError(
            f"{text!r} has an unknown unit {match.group(3)!r}: use K, M, G, T, P or B"
        )
    scale = _UNITS[unit] if unit else default_unit
    size, rest = divmod(int(whole + fraction) * scale, int(10 ** len(fraction)))
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    if size >= _LIMIT:
        raise ValueError(f"{text!r} is too large: sizes end below 8E")
    return size


def format_size(size: int) -> str:
    """Write a size for people: "10 GiB", "1.5 TiB", "513 B".

    Args:
        size: [bytes], 0 or more.
    """
    value, unit = float(size), "B"
    for name in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1024:
            break
        value, unit = value / 1024, name
    text = f"{value:.1f}".removesuffix(".0")
    return f"{text} {unit}"
