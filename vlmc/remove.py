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
@click.option("--wait", "-w", is_flag=True, help="Wait for clients that use them.")
@click.option(
    "--force",
    "-f",
    is_flag=True,
    help="Cut off clients that use them: their I/O ends with errors.",
)
@common_options
@click.pass_context
def command(
    ctx: click.Context, names: tuple[str, ...], wait: bool, force: bool
) -> None:
    """Remove the volumes and snapshots NAME...

    Clones live on without the snapshot they came from.  Names that cannot be removed
    are reported and the others are removed all the same.
    """
    removed = []
    code = 0
    with connect() as client:
        for name in names:
            try:
                client.remove(name, wait=wait, force=force)
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
