# SPDX-License-Identifier: Apache-2.0
"""``vlmc export NAME FILE``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import talk, write_json
from vlmc.progress import progress_bar

__all__ = ["command"]


@click.command("export", epilog="Example: vlmc export disk disk.raw")
@volume_argument()
@click.argument("file", type=click.Path(allow_dash=True))
@common_options
def command(name: str, file: str) -> None:
    """Write the volume or snapshot NAME to the raw FILE, or "-" for standard output.

    Its holes are left out.  The file is replaced when the export is whole and durable.
    A block device is written in place and synced; it must be large enough.
    """
    from archipelago.images.export import export_volume

    with connect() as client, progress_bar(f"export {name}") as progress:
        export_volume(client, name, file, progress=progress)
    if Common.current().json:
        # Standard output may be the image, which takes nothing else.
        write_json({"name": name, "file": file}, err=file == "-")
    else:
        talk(f"exported {name} to {file}")
