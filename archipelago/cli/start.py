# SPDX-License-Identifier: Apache-2.0
"""``archipelago start [PEER]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.options import (
    PEER_HELP,
    gather,
    peer_argument,
    setting_options,
    user_option,
)
from archipelago.cli.output import note, write_json

if TYPE_CHECKING:
    from archipelago.settings import Settings

__all__ = ["command", "summarize"]


@click.command(
    "start", epilog=f"{PEER_HELP}  Example: archipelago start --placement apart"
)
@peer_argument
@user_option
@click.option(
    "-F",
    "--foreground",
    is_flag=True,
    help="Stay in the foreground and log to standard error.",
)
@click.option(
    "--new-identity",
    is_flag=True,
    help="Give this instance an identity of its own: it is a copy of another one.",
)
@setting_options
@common_options
def command(
    peer: str | None,
    foreground: bool,
    new_identity: bool,
    options: tuple[str, ...],
    **named: str | None,
) -> None:
    """Start archipelago and wait until it serves; or start one PEER that was stopped.

    With no configuration at all it keeps its volumes in files below the state
    directory ('archipelago config show' says where).
    """
    from archipelago.control.instance import new_identity_wanted
    from archipelago.settings import load_settings
    from archipelago.supervisor.client import refuse_second

    common = Common.current()
    overrides = gather(options, **named)
    if peer is not None:
        if new_identity:
            raise click.UsageError("a single peer has no identity; the instance has")
        _start_peer(peer, common, overrides)
        return
    settings = load_settings(common.home, **overrides)
    refuse_second(settings.locations)
    with new_identity_wanted(settings.instance_file, new_identity):
        _start(settings, common, overrides, foreground=foreground)


def _start(
    settings: Settings, common: Common, overrides: dict[str, Any], *, foreground: bool
) -> None:
    if foreground:
        from archipelago.supervisor.__main__ import run_foreground

        def ready(status: Mapping[str, Any]) -> bool:
            summarize(status, common)
            return True

        run_foreground(settings, overrides, ready)
    else:
        from archipelago.supervisor.launch import launch

        summarize(launch(settings, overrides), common)


def _start_peer(peer: str, common: Common, overrides: dict[str, Any]) -> None:
    from archipelago.paths import locate
    from archipelago.supervisor.client import ask

    if overrides:
        raise click.UsageError("a single peer takes no settings; 'restart' does")
    where = locate(common.home)
    ask(where, "start", peer=peer)
    if common.json:
        write_json(ask(where, "status"))
    else:
        note(f"{peer} is running")


def summarize(status: Mapping[str, Any], common: Common) -> None:
    """Say in a few lines what runs now."""
    if common.json:
        write_json(status)
        return
    click.echo(
        f"archipelago is running (pid {status['pid']}): peers {status['placement']}, "
        f"{status['backend']} backend, {status['engine']} engine"
    )
    for address in status["nbd"]:
        click.echo(f"NBD clients connect to {address}")
    for line in status["notes"]:
        note(f"note: {line}")
