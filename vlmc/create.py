# SPDX-License-Identifier: Apache-2.0
"""``vlmc create NAME --size S`` and ``vlmc create NAME --snap SNAP``."""

from __future__ import annotations

import click

from archipelago.cli.base import common_options, size_callback
from vlmc.connection import (
    block_size_option,
    complete_volumes,
    connect,
    new_name_argument,
)
from vlmc.output import done, size_text

__all__ = ["command"]


@click.command("create", epilog="Example: vlmc create disk --size 10G")
@new_name_argument()
@click.option(
    "-s",
    "--size",
    metavar="SIZE",
    callback=size_callback,
    help="Its size: 10G, 512M; a bare number is in MiB.",
)
@click.option(
    "--snap",
    metavar="SNAP",
    shell_complete=complete_volumes,
    help="Make it from this snapshot.",
)
@block_size_option
@common_options
def command(
    name: str, size: int | None, snap: str | None, block_size: int | None
) -> None:
    """Create the volume NAME.

    With --size it is empty; with --snap it starts as that snapshot, of the same size
    if --size does not make it larger.  At least one of the two is needed.
    """
    if size is None and snap is None:
        raise click.UsageError("--size or --snap is needed")
    if snap is not None and block_size is not None:
        raise click.UsageError("--block-size follows from the snapshot; leave it out")
    with connect() as client:
        info = client.create(name, size=size, snap=snap, block_size=block_size)
    done(info, f"created {name}, {size_text(info.size)}")
