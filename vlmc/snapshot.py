# SPDX-License-Identifier: Apache-2.0
"""``vlmc snapshot VOLUME SNAPSHOT``."""

from __future__ import annotations

import click

from archipelago.cli.base import common_options
from vlmc.connection import connect, new_name_argument, volume_argument
from vlmc.output import done

__all__ = ["command"]


@click.command("snapshot")
@volume_argument("volume")
@new_name_argument("snapshot")
@common_options
def command(volume: str, snapshot: str) -> None:
    """Take the snapshot SNAPSHOT of VOLUME, which may be in use."""
    with connect() as client:
        info = client.snapshot(volume, snapshot)
    done(info, f"snapshot name: {snapshot}")
