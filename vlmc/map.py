# SPDX-License-Identifier: Apache-2.0
"""``vlmc map NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import write_json

__all__ = ["command"]


@click.command("map", epilog="Example: mount $(vlmc map vm1) /mnt")
@volume_argument()
@click.option("--read-only", "-r", is_flag=True, help="Refuse writes; for snapshots.")
@click.option(
    "--driver",
    type=click.Choice(["auto", "loop"]),
    default="auto",
    show_default=True,
    help="How the device is served.",
)
@common_options
def command(name: str, read_only: bool, driver: str) -> None:
    """Make the volume NAME a block device of this machine and print its path.

    A volume that is mapped already keeps its device.  Needs root.
    """
    from archipelago.mapping import map_volume
    from vlmc.mapped import own_mount

    with connect() as client:
        client.info(name, usage=False)  # refuse a name that is not there
        mapping = map_volume(own_mount(), name, read_only=read_only)
    if Common.current().json:
        write_json(mapping.to_json())
    else:
        click.echo(mapping.device)
