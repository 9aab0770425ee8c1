# SPDX-License-Identifier: Apache-2.0
"""``vlmc unlock [-f] NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import talk, write_json

__all__ = ["command"]


@click.command("unlock", epilog="Example: vlmc unlock -f disk")
@volume_argument()
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Break the lock of any holder, or a damaged one.",
)
@common_options
def command(name: str, force: bool) -> None:
    """Unlock the volume NAME.

    A lock that another instance took, or the one of a volume that is open, is only
    broken with -f: clients that use the volume there get errors from then on.  -f also
    mends a lock whose record is damaged.
    """
    with connect() as client:
        broken = client.unlock(name, force=force).broken
        info = client.info(name)
    if Common.current().json:
        lease = info.lease.to_json() if info.lease is not None else None
        members = {"name": name, "lease": lease}
        if broken is not None:
            members["broken"] = broken.to_json()
        write_json(members)
    elif broken is not None and not broken.owner:
        talk(f"{name} is unlocked: its lock was damaged and is written anew")
    elif broken is not None:
        talk(
            f"{name} is unlocked: broke the lease of {broken.host} (instance "
            f"{broken.owner}, pid {broken.pid}), whose users get errors until they "
            "close it"
        )
    else:
        talk(f"{name} is unlocked")
