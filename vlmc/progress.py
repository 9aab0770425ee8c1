# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error, when a person is there to see it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

__all__ = ["progress_bar"]

#: Called with what is done and how much there is [bytes]; the latter None if unknown.
Progress = Callable[[int, "int | None"], None]


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Progress | None]:
    """Show a bar for one long work; None if standard error is no terminal.

    Args:
        what: the work, in a word or two.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
