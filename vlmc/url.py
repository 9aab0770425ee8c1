# SPDX-License-Identifier: Apache-2.0
"""``vlmc url NAME``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import write_json

__all__ = ["command"]


@click.command("url", epilog='Example: qemu-img info "$(vlmc url disk)"')
@volume_argument()
@common_options
def command(name: str) -> None:
    """Print the URL under which NBD clients find the volume or snapshot NAME."""
    with connect() as client:
        client.info(name)  # refuse a name that is not there
        url = client.url(name)
    if Common.current().json:
        write_json({"name": name, "url": url})
    else:
        click.echo(url)
