# SPDX-License-Identifier: Apache-2.0
"""``vlmc unmap DEVICE|NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("unmap", epilog="Example: vlmc unmap /dev/xsegbd1")
@click.argument("target", metavar="DEVICE|NAME")
@common_options
def command(target: str) -> None:
    """Undo 'vlmc map': DEVICE is what that printed, NAME the volume.

    All that was written is flushed.  A device that is mounted or open is refused.
    """
    from archipelago.mapping import unmap_volume
    from vlmc.mapped import own_mount

    mapping = unmap_volume(own_mount(), target)
    if Common.current().json:
        write_json(mapping.to_json())
    else:
        talk(f"{mapping.device} ({mapping.volume}) is unmapped")
