# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xseg.units import GIB, KIB, MIB, TIB, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", MIB),
        (16, 16 * MIB),
        ("0", 0),
        ("4096B", 4096),
        ("4k", 4 * KIB),
        ("4K", 4 * KIB),
        ("4Ki", 4 * KIB),
        ("4KiB", 4 * KIB),
        ("10G", 10 * GIB),
        (" 10 GiB ", 10 * GIB),
        ("1.5T", TIB + TIB // 2),
        ("0.5", MIB // 2),
        ("10GB", 10**10),
        ("7P", 7 << 50),
    ],
)
def test_sizes_are_read(text: str | int, size: int) -> None:
    assert parse_size(text) == size


def test_the_default_unit_is_the_callers() -> None:
    assert parse_size("512", default_unit=1) == 512
    assert parse_size("1K", default_unit=1) == KIB


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a size"),
        ("-1", "not a size"),
        ("ten", "not a size"),
        ("1..5G", "not a size"),
        ("1e3", "not a size"),
        ("10X", "unknown unit"),
        ("10ib", "unknown unit"),
        ("10bib", "unknown unit"),
        ("0.3B", "whole number"),
        ("8E", "unknown unit"),
        ("8192P", "too large"),
        ("\u0661G", "not a size"),
    ],
)
def test_what_is_no_size_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (513, "513 B"),
        (KIB, "1 KiB"),
        (10 * GIB, "10 GiB"),
        (TIB + TIB // 2, "1.5 TiB"),
        (1 << 60, "1 EiB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**62))
def test_bytes_read_back(size: int) -> None:
    assert parse_size(f"{size}B") == size
