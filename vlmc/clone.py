# SPDX-License-Identifier: Apache-2.0
"""``vlmc clone SNAP NAME...``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options, report, size_callback
from vlmc.connection import connect, new_name_argument, volume_argument
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("clone", epilog="Example: vlmc clone golden vm1 vm2 vm3")
@volume_argument("snap")
@new_name_argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "-s",
    "--size",
    metavar="SIZE",
    callback=size_callback,
    help="Their size, if not the snapshot's: 10G, 512M; a bare number is in MiB.",
)
@common_options
@click.pass_context
def command(
    ctx: click.Context, snap: str, names: tuple[str, ...], size: int | None
) -> None:
    """Make the volumes NAME... from the snapshot SNAP.

    Names that cannot be made are reported and the others are made all the same.
    """
    with connect() as client:
        result = client.clone(snap, names, size=size)
    code = 0
    for error in result.failed.values():
        failure = report(error, ctx.find_root().info_name)
        code = code or failure
    if result.created and Common.current().json:
        failed = {name: str(error) for name, error in result.failed.items()}
        write_json({"created": list(result.created), "failed": failed})
    elif result.created:
        talk(f"created {len(result.created)} clones of {snap}")
    ctx.exit(code)
