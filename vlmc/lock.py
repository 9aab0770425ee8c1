# SPDX-License-Identifier: Apache-2.0
"""``vlmc lock NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("lock", epilog="Example: vlmc lock disk")
@volume_argument()
@common_options
def command(name: str) -> None:
    """Lock the volume NAME, so that no other instance can change it.

    The lock stays until 'vlmc unlock', also over restarts.
    """
    with connect() as client:
        client.lock(name)
        info = client.info(name)
    if Common.current().json:
        lease = info.lease.to_json() if info.lease is not None else None
        write_json({"name": name, "lease": lease})
    else:
        talk(f"{name} is locked")
