# SPDX-License-Identifier: Apache-2.0
"""``vlmc info NAME``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import info_json, size_text, write_fields, write_json

if TYPE_CHECKING:
    from archipelago.info import LeaseInfo

__all__ = ["command"]


@click.command("info", epilog="Example: vlmc info disk")
@volume_argument()
@common_options
def command(name: str) -> None:
    """Show everything known of the volume or snapshot NAME."""
    with connect() as client:
        info = client.info(name, usage=True)
        users = client.users(name)
    if Common.current().json:
        lease = info.lease.to_json() if info.lease is not None else None
        clients = [user.to_json() for user in users]
        write_json(info_json(info) | {"lease": lease, "clients": clients})
        return
    write_fields(
        [
            ("name", info.name),
            ("uuid", info.uuid),
            ("kind", info.kind),
            ("size", f"{size_text(info.size)} ({info.size} bytes)"),
            ("block size", size_text(info.block_size)),
            ("epoch", info.epoch),
            ("read only", "yes" if info.read_only else "no"),
            ("parent", info.parent),
            ("created", info.created),
            ("depth", info.depth),
            ("private", size_text(info.private_bytes)),
            ("shared", size_text(info.shared_bytes)),
            ("in use by", _holder(info.lease)),
            *([("damaged", info.damaged)] if info.damaged else []),
            *(("client", str(user)) for user in users),
        ]
    )


def _holder(lease: LeaseInfo | None) -> str | None:
    if lease is None or not lease.owner:
        return None if lease is None else lease.damage
    how = "locked" if lease.locked else f"until {lease.expires}"
    return (
        f"pid {lease.pid} on {lease.host} (instance {lease.owner}, fence "
        f"{lease.fence}, {lease.damage or how})"
    )
