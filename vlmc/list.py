# SPDX-License-Identifier: Apache-2.0
"""``vlmc list``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.output import note
from vlmc.connection import connect
from vlmc.output import info_json, size_text, write_json, write_table

__all__ = ["command"]


@click.command("list", epilog="Example: vlmc list vm")
@click.argument("prefix", default="")
@common_options
def command(prefix: str) -> None:
    """List volumes and snapshots, or those whose name begins with PREFIX."""
    with connect() as client:
        volumes = list(client.list(prefix=prefix, leases=Common.current().json))
        for volume in volumes:
            if volume.damaged:
                note(f'damaged: "{volume.name}": {volume.damaged}')
        if Common.current().json:
            users = {
                name: [user.to_json() for user in client.users(name)]
                for name in client.open_volumes()
                if name.startswith(prefix)
            }
            write_json(
                {
                    "volumes": [
                        info_json(volume) | {"clients": users.get(volume.name, [])}
                        for volume in volumes
                    ]
                }
            )
            return
    write_table(
        ["NAME", "KIND", "SIZE", "DEPTH", "PARENT", "CREATED"],
        [
            [v.name, v.kind, size_text(v.size), v.depth, v.parent, v.created]
            for v in volumes
        ],
        right="llrrll",
    )
