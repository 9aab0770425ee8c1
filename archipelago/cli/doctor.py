# SPDX-License-Identifier: Apache-2.0
"""``archipelago doctor``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.output import write_json, write_table

__all__ = ["command"]


@click.command("doctor", epilog="Example: archipelago doctor")
@common_options
def command() -> None:
    """Show what this machine has for block devices and mounts, and how to get more."""
    from kernel.probe import probe

    features = probe()
    if Common.current().json:
        write_json([feature.to_json() for feature in features])
        return
    write_table(
        ["FEATURE", "STATE", "FOUND", "FOR"],
        [[f.name, f.state.value, f.found, f.purpose] for f in features],
        right="llll",
    )
    for feature in features:
        if feature.cure:
            click.echo(f"{feature.name}: {feature.cure}")
