# SPDX-License-Identifier: Apache-2.0
"""``vlmc import FILE NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import common_options
from archipelago.images.signature import FORMATS
from vlmc.connection import block_size_option, connect, new_name_argument
from vlmc.output import done, size_text
from vlmc.progress import progress_bar

__all__ = ["command"]


@click.command("import", epilog="Example: vlmc import debian.qcow2 golden")
@click.argument("file", type=click.Path(allow_dash=True))
@new_name_argument()
@click.option("--volume", is_flag=True, help="Make a volume, not a snapshot.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(FORMATS),
    help="What FILE is (default: what its first and last bytes say).",
)
@block_size_option
@common_options
def command(
    file: str,
    name: str,
    volume: bool,
    image_format: str | None,
    block_size: int | None,
) -> None:
    """Import the disk image FILE, or "-" for standard input, as NAME.

    The result is read-only unless --volume is given; blocks that the store has already
    are stored once.  Holes are skipped.  A raw image may be packed by gzip, xz, zstd
    or bzip2; other formats are read by QEMU.  No file but FILE is opened: an image
    that names another one is refused.
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
            image_format=image_format,
        )
    done(info, f"imported {name}, {size_text(info.size)}")
