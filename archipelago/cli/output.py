# SPDX-License-Identifier: Apache-2.0
"""How commands write their data: aligned columns for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

__all__ = ["note", "write_fields", "write_json", "write_table"]


def write_json(document: Any, *, err: bool = False) -> None:
    """Write one JSON document; indented, so that people can read it as well.

    Args:
        document: what to write.
        err: to standard error: standard output carries something else.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    encoding = (sys.stderr if err else sys.stdout).encoding
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        # JSON has escapes of its own; those of the stream would make it invalid.
        text = json.dumps(document, indent=2, ensure_ascii=True, default=str)
    click.echo(text, err=err)


def write_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], *, right: str = ""
) -> None:
    """Write columns as wide as they need to be, never cut.

    Args:
        heads: names of the columns.
        rows: their values; None shows as a dash.
        right: one letter per column, "l" or "r": how it is aligned; default left.
    """
    cells = [["-" if value is None else str(value) for value in row] for row in rows]
    widths = [
        max(len(head), *(len(row[column]) for row in cells), 0)
        for column, head in enumerate(heads)
    ]
    sides = right.ljust(len(heads), "l")
    click.secho(_line(heads, widths, sides), bold=True)
    for row in cells:
        click.echo(_line(row, widths, sides))


def _line(cells: Sequence[str], widths: Sequence[int], sides: str) -> str:
    padded = (
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(cells, widths, sides, strict=True)
    )
    return "  ".join(padded).rstrip()


def write_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Write one thing's properties, a line each."""
    shown = [(name, "-" if value is None else str(value)) for name, value in fields]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}".rstrip())


def note(line: str) -> None:
    """Say something that is no data."""
    click.echo(line, err=True)
