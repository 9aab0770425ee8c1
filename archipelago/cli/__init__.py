# SPDX-License-Identifier: Apache-2.0
"""The command ``archipelago``.  One module here is one command.

`base` and `output` are shared with ``vlmc``.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; does not return."""
    from archipelago.cli.app import cli
    from archipelago.cli.base import run

    run(cli, "archipelago")
