# SPDX-License-Identifier: Apache-2.0
"""``vlmc open NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("open", epilog="Example: vlmc open disk")
@volume_argument()
@common_options
def command(name: str) -> None:
    """Open the volume NAME, taking its lock, and keep it open.

    Succeeds if it is open already.  'vlmc close' closes it.
    """
    with connect() as client:
        client.hold(name)
        info = client.info(name)
    if Common.current().json:
        lease = info.lease.to_json() if info.lease is not None else None
        write_json({"name": name, "lease": lease})
    else:
        talk(f"{name} is open")
