# SPDX-License-Identifier: Apache-2.0
"""``vlmc mount DIR``."""

from __future__ import annotations

import os

import click

from archipelago.cli.base import Common, common_options
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("mount", epilog="Example: vlmc mount /mnt/volumes; ls -l /mnt/volumes")
@click.argument("folder", metavar="DIR")
@common_options
def command(folder: str) -> None:
    """Show every volume and snapshot as a file in the empty directory DIR.

    Reading and writing such a file reads and writes the volume; snapshots are
    read-only.  Works without root where fusermount3 is installed.
    """
    from archipelago.paths import locate
    from archipelago.supervisor.client import ask

    where = locate(Common.current().home)
    path = ask(where, "mount", path=os.path.realpath(folder))["path"]
    if Common.current().json:
        write_json({"path": path})
    else:
        talk(f"volumes are files below {path}")
