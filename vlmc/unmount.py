# SPDX-License-Identifier: Apache-2.0
"""``vlmc unmount DIR``."""

from __future__ import annotations

import os

import click

from archipelago.cli.base import Common, common_options
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("unmount", epilog="Example: vlmc unmount /mnt/volumes")
@click.argument("folder", metavar="DIR")
@click.option("--force", "-f", is_flag=True, help="Although files there are open.")
@common_options
def command(folder: str, force: bool) -> None:
    """Undo 'vlmc mount': the files below DIR go, the volumes stay."""
    from archipelago.paths import locate
    from archipelago.supervisor.client import ask

    path = os.path.realpath(folder)
    where = locate(Common.current().home)
    ask(where, "unmount", path=path, force=force)
    if Common.current().json:
        write_json({"path": path})
    else:
        talk(f"{path} is unmounted")
