# SPDX-License-Identifier: Apache-2.0
"""Rows of the report: a figure of ours beside a rival's, and the goal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what was done.
        ours: our figure, with its unit.
        rival: whose figure it is compared with, and that figure.
        ratio: ours / theirs (or theirs / ours where less is better): more is better.
        goal: the ratio we want, or None.
    """

    work: str
    ours: str
    rival: str
    ratio: float
    goal: float | None

    @property
    def verdict(self) -> str:
        """How it stands: met, short of the goal, or less than half of it."""
        if self.goal is None:
            return ""
        if self.ratio >= self.goal:
            return "[green]met[/green]"
        return (
            "[yellow]short[/yellow]"
            if self.ratio >= self.goal / 2
            else "[red]far[/red]"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def show(title: str, rows: list[Row], notes: list[str]) -> None:
    """Print a table and the commands behind it."""
    console = Console(width=140)
    table = Table(title=title)
    for column, justify in (
        ("work", "left"),
        ("ours", "right"),
        ("against", "right"),
        ("ratio", "right"),
        ("goal", "right"),
        ("", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        goal = f"{row.goal:.2f}x" if row.goal is not None else ""
        table.add_row(
            row.work, row.ours, row.rival, f"{row.ratio:.2f}x", goal, row.verdict
        )
    console.print(table)
    for note in notes:
        console.print(f"  [dim]{note}[/dim]", soft_wrap=True)
