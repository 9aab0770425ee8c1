# SPDX-License-Identifier: Apache-2.0
"""``vlmc resize NAME --size S``."""

from __future__ import annotations

import click

from archipelago.cli.base import common_options, size_callback
from vlmc.connection import connect, volume_argument
from vlmc.output import done, size_text

__all__ = ["command"]


@click.command("resize", epilog="Example: vlmc resize disk --size 20G")
@volume_argument()
@click.option(
    "-s",
    "--size",
    metavar="SIZE",
    required=True,
    callback=size_callback,
    help="Its new size: 10G, 512M; a bare number is in MiB.",
)
@common_options
def command(name: str, size: int) -> None:
    """Make the volume NAME larger, or smaller: then what lay beyond is lost."""
    with connect() as client:
        info = client.resize(name, size)
    done(info, f"{name} is now {size_text(info.size)}")
