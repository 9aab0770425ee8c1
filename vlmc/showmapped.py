# SPDX-License-Identifier: Apache-2.0
"""``vlmc showmapped``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.output import talk, write_json, write_table

__all__ = ["command"]


@click.command("showmapped", epilog="Example: vlmc showmapped --json")
@common_options
def command() -> None:
    """List the volumes that are block devices of this machine."""
    from archipelago.mapping import mappings
    from vlmc.mapped import own_mount

    found = mappings(own_mount())
    if Common.current().json:
        write_json([mapping.to_json() for mapping in found])
        return
    if not found:
        talk("no volume is mapped")
        return
    write_table(
        ["ID", "VOLUME", "DEVICE", "DRIVER", "READ-ONLY"],
        [
            [m.id, m.volume, m.device, m.driver, "yes" if m.read_only else "no"]
            for m in found
        ],
        right="rllll",
    )
