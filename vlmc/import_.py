# SPDX-License-Identifier: Apache-2.0
"""``vlmc import FILE NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import common_options
from vlmc.connection import block_size_option, connect, new_name_argument
from vlmc.output import done, size_text
from vlmc.progress import progress_bar

__all__ = ["command"]


@click.command("import", epilog="Example: vlmc import debian.qcow2 golden")
@click.argument("file", type=click.Path(allow_dash=True))
@new_name_argument()
@click.option("--volume", is_flag=True, help="Make a volume, not a snapshot.")
@block_size_option
@common_options
def command(file: str, name: str, volume: bool, block_size: int | None) -> None:
    """Import the disk image FILE, or "-" for standard input, as NAME.

    The result is read-only unless --volume is given; blocks that the store has already
    are stored once.  Holes of a raw file are skipped; other formats are read by
    qemu-img.
    """
    from archipelago.images.import_ import import_image

    with connect() as client, progress_bar(f"import {name}") as progress:
        info = import_image(
            client,
            file,
            name,
            volume=volume,
            block_size=block_size,
            progress=progress,
        )
    done(info, f"imported {name}, {size_text(info.size)}")
