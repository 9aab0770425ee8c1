# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write them: re-exported so that only one rule exists."""

from __future__ import annotations

from xseg.units import format_size, parse_size

__all__ = ["format_size", "parse_size"]
