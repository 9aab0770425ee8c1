# SPDX-License-Identifier: Apache-2.0
"""``vlmc rename OLD NEW``."""

from __future__ import annotations

import click

from archipelago.cli.base import common_options
from vlmc.connection import connect, new_name_argument, volume_argument
from vlmc.output import done

__all__ = ["command"]


@click.command("rename", epilog="Example: vlmc rename disk data")
@volume_argument("old")
@new_name_argument("new")
@common_options
def command(old: str, new: str) -> None:
    """Give the volume or snapshot OLD the name NEW."""
    with connect() as client:
        info = client.rename(old, new)
    done(info, f"renamed {old} to {new}")
