# SPDX-License-Identifier: Apache-2.0
"""``vlmc snapshot VOLUME SNAP``."""

from __future__ import annotations

import click

from archipelago.cli.base import common_options
from vlmc.connection import connect, new_name_argument, volume_argument
from vlmc.output import done

__all__ = ["command"]


@click.command("snapshot", epilog="Example: vlmc snapshot disk before-upgrade")
@volume_argument("volume")
@new_name_argument("snapshot", metavar="SNAP")
@common_options
def command(volume: str, snapshot: str) -> None:
    """Take the snapshot SNAP of VOLUME, which may be in use."""
    with connect() as client:
        info = client.snapshot(volume, snapshot)
    done(info, f"snapshot name: {snapshot}")
