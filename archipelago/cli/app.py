# SPDX-License-Identifier: Apache-2.0
"""The command ``archipelago``: which commands there are."""

from __future__ import annotations

import click

from archipelago.cli.base import Entry, LazyGroup, common_options
from archipelago.cli.options import user_option, version_option

__all__ = ["cli"]

_PACKAGE = "archipelago.cli"


@click.group(
    "archipelago",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    entries={
        "start": Entry(f"{_PACKAGE}.start", "Start archipelago, or one peer."),
        "stop": Entry(f"{_PACKAGE}.stop", "Stop archipelago, or one peer."),
        "restart": Entry(f"{_PACKAGE}.restart", "Restart archipelago, or one peer."),
        "status": Entry(f"{_PACKAGE}.status", "Show the status of archipelago."),
        "init": Entry(f"{_PACKAGE}.init", "Make a new store on purpose."),
        "doctor": Entry(f"{_PACKAGE}.doctor", "Show what this machine has."),
        "config": Entry(f"{_PACKAGE}.config", "Show the settings in effect."),
        "completion": Entry(f"{_PACKAGE}.completion", "Print a completion script."),
    },
)
@user_option
@version_option
@common_options
def cli() -> None:
    """Start, stop and watch an instance of archipelago.

    The peers are blockerb, blockerm, mapperd and vlmcd.
    """
