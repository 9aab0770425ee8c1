# SPDX-License-Identifier: Apache-2.0
"""``vlmc remove NAME...``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options, report
from archipelago.errors import ArchipelagoError
from vlmc.connection import connect, volume_argument
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("remove", epilog="Example: vlmc remove vm1 vm2")
@volume_argument("names", nargs=-1, required=True, metavar="NAME...")
@common_options
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Remove the volumes and snapshots NAME...

    Clones live on without the snapshot they came from.  Names that cannot be removed
    are reported and the others are removed all the same.
    """
    removed = []
    code = 0
    with connect() as client:
        for name in names:
            try:
                client.remove(name)
            except ArchipelagoError as error:
                failure = report(error, ctx.find_root().info_name)
                if failure == 8:  # the others cannot be removed either
                    ctx.exit(failure)
                code = code or failure
            else:
                removed.append(name)
    if removed and Common.current().json:
        write_json({"removed": removed})
    elif removed:
        talk(f"removed {', '.join(removed)}")
    ctx.exit(code)
