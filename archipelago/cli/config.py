# SPDX-License-Identifier: Apache-2.0
"""``archipelago config show``."""

from __future__ import annotations

from typing import Any

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.options import gather, setting_options
from archipelago.cli.output import note, write_json, write_table

__all__ = ["command"]


@click.group("config")
@common_options
def command() -> None:
    """Look at the configuration."""


@command.command("show", epilog="Example: archipelago config show -o engine=threads")
@click.option(
    "-n",
    "--next",
    "upcoming",
    is_flag=True,
    help="Show what the next start would use, though an instance runs.",
)
@setting_options
@common_options
def show(upcoming: bool, options: tuple[str, ...], **named: str | None) -> None:
    """Show every setting in effect and where it came from.

    Of an instance that runs, this is what it was started with.  Otherwise, with --next
    or with settings on the command line, it is what a start would use now.

    Settings come from the command line, the environment (ARCHIPELAGO_SEGMENT_HEAP for
    segment.heap), archipelago.toml, the KEY=VALUE file /etc/default/archipelago and
    the defaults; the first that has a setting wins.
    """
    common = Common.current()
    overrides = gather(options, **named)
    document = None if upcoming or overrides else _in_effect(common.home)
    running = document is not None
    if document is None:
        from archipelago.settings import load_settings
        from archipelago.supervisor.report import settings_in_effect

        document = settings_in_effect(load_settings(common.home, **overrides))
    if common.json:
        write_json({"running": running, **document})
        return
    write_table(
        ["SETTING", "VALUE", "FROM"],
        [
            [key, _shown(key, item["value"]), item["origin"]]
            for key, item in document["settings"].items()
        ],
    )
    click.echo()
    write_table(["PLACE", "PATH"], list(document["paths"].items()))
    for line in document["notes"]:
        note(f"note: {line}")


def _in_effect(home: str | None) -> dict[str, Any] | None:
    """The settings of the running instance; None if none runs."""
    from archipelago.paths import locate
    from archipelago.supervisor.client import NoSupervisor, ask

    try:
        return ask(locate(home), "settings")
    except NoSupervisor:
        return None


def _shown(key: str, value: Any) -> str | None:
    from archipelago.units import format_size

    if isinstance(value, bool):
        return str(value).lower()
    if key in ("block_size", "segment.heap"):
        return str(format_size(value))
    if value is None:
        return None
    return str(value) if value != "" else '""'
