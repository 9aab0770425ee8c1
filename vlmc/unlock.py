# SPDX-License-Identifier: Apache-2.0
"""``vlmc unlock [-f] NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("unlock")
@volume_argument()
@click.option(
    "-f", "--force", is_flag=True, help="Break a lock that somebody else holds."
)
@common_options
def command(name: str, force: bool) -> None:
    """Unlock the volume NAME.

    A lock that another instance took is only broken with -f; that instance can write
    no more from then on.
    """
    with connect() as client:
        client.unlock(name, force=force)
        info = client.info(name)
    if Common.current().json:
        lease = info.lease.to_json() if info.lease is not None else None
        write_json({"name": name, "lease": lease})
    else:
        talk(f"{name} is unlocked")
