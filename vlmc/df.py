# SPDX-License-Identifier: Apache-2.0
"""``vlmc df``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect
from vlmc.output import size_text, write_fields, write_json

__all__ = ["command"]


@click.command("df", epilog="Example: vlmc df --json")
@common_options
def command() -> None:
    """Show how full the store is."""
    with connect() as client:
        usage = client.df()
    if Common.current().json:
        write_json(usage.to_json())
        return
    counted = [("  counted", f"{usage.age_seconds} s ago")] if usage.age_seconds else []
    write_fields(
        [
            ("capacity", size_text(usage.capacity_bytes)),
            ("free", size_text(usage.free_bytes)),
            ("addressed by volumes", size_text(usage.logical_bytes)),
            ("stored", size_text(usage.stored_bytes)),
            ("  written by volumes", size_text(usage.private_bytes)),
            ("  content blocks", size_text(usage.content_bytes)),
            *counted,
        ]
    )
