# SPDX-License-Identifier: Apache-2.0
"""Options that several commands of ``archipelago`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

__all__ = [
    "PEERS",
    "PEER_HELP",
    "gather",
    "peer_argument",
    "setting_options",
    "user_option",
    "version_option",
]

AnyCallback = TypeVar("AnyCallback", bound=Callable[..., Any])

#: Last line of the help of commands that take one.
PEER_HELP = "PEER is blockerb, blockerm, mapperd or vlmcd."
PEERS = ("blockerb", "blockerm", "mapperd", "vlmcd")


def peer_argument(function: AnyCallback) -> AnyCallback:
    """Add the optional PEER."""
    return click.argument(
        "peer", required=False, type=click.Choice(PEERS), metavar="[PEER]"
    )(function)


def user_option(function: AnyCallback) -> AnyCallback:
    """Add ``-u``: only the user-space peers, which is what all peers are."""
    return click.option(
        "-u",
        "--user",
        is_flag=True,
        expose_value=False,
        help="Only the peers in user space; today these are all.",
    )(function)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"{ctx.info_name} {version('archipelago')}")
        ctx.exit()


def version_option(function: AnyCallback) -> AnyCallback:
    """Add ``--version``."""
    return click.option(
        "--version",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_show_version,
        help="Print the version.",
    )(function)


def setting_options(function: AnyCallback) -> AnyCallback:
    """Add the options that win over all other settings."""
    for option in (
        click.option(
            "-o",
            "--option",
            "options",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any setting, such as nbd.listen=127.0.0.1; may be repeated.",
        ),
        click.option(
            "--engine",
            type=click.Choice(["auto", "io_uring", "threads"]),
            help="How files are read and written.",
        ),
        click.option(
            "--backend", type=click.Choice(["file", "mem"]), help="Where blocks are."
        ),
        click.option(
            "--placement",
            type=click.Choice(["together", "apart"]),
            help="All peers in one process, or a process for each.",
        ),
    ):
        function = option(function)
    return function


def gather(options: Iterable[str], **named: str | None) -> dict[str, Any]:
    """Make the overrides of `load_settings` from the options above."""
    overrides: dict[str, Any] = {
        key: value for key, value in named.items() if value is not None
    }
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise click.BadParameter(
                f"{option!r} is not KEY=VALUE", param_hint="'-o' / '--option'"
            )
        overrides[key.strip()] = value
    return overrides
