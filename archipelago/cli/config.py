# SPDX-License-Identifier: Apache-2.0
"""``archipelago config show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.options import gather, setting_options
from archipelago.cli.output import note, write_json, write_table

if TYPE_CHECKING:
    from archipelago.settings import Settings

__all__ = ["command"]


@click.group("config")
@common_options
def command() -> None:
    """Look at the configuration."""


@command.command("show", epilog="Example: archipelago config show -o engine=threads")
@setting_options
@common_options
def show(options: tuple[str, ...], **named: str | None) -> None:
    """Show every setting in effect and where it came from.

    They come from the command line, the environment (ARCHIPELAGO_SEGMENT_HEAP for
    segment.heap), archipelago.toml, the KEY=VALUE file /etc/default/archipelago and
    the defaults; the first that has a setting wins.
    """
    from archipelago.settings import load_settings, setting_keys

    common = Common.current()
    settings = load_settings(common.home, **gather(options, **named))
    values = {key: _value(settings, key) for key in setting_keys()}
    if common.json:
        write_json(
            {
                "settings": {
                    key: {"value": value, "origin": settings.origins[key]}
                    for key, value in values.items()
                },
                "paths": _paths(settings),
                "notes": list(settings.notes),
            }
        )
        return
    write_table(
        ["SETTING", "VALUE", "FROM"],
        [
            [key, _shown(key, value), settings.origins[key]]
            for key, value in values.items()
        ],
    )
    click.echo()
    write_table(["PLACE", "PATH"], list(_paths(settings).items()))
    for line in settings.notes:
        note(f"note: {line}")


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    if key == "nbd.socket":
        value = settings.nbd_socket
    return value if isinstance(value, (bool, int, float, type(None))) else str(value)


def _shown(key: str, value: Any) -> str | None:
    from archipelago.units import format_size

    if isinstance(value, bool):
        return str(value).lower()
    if key in ("block_size", "segment.heap"):
        return str(format_size(value))
    if value is None:
        return None
    return str(value) if value != "" else '""'


def _paths(settings: Settings) -> dict[str, str]:
    where = settings.locations
    return {
        "config_file": str(where.config_file),
        "legacy_file": str(where.legacy_file or ""),
        "segment": settings.segment_name,
        "supervisor_socket": str(settings.supervisor_socket),
        "pid_file": str(settings.pid_file),
        "instance_file": str(settings.instance_file),
    }
