# SPDX-License-Identifier: Apache-2.0
"""``archipelago restart [PEER]``."""

from __future__ import annotations

from typing import Any

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.options import (
    PEER_HELP,
    gather,
    peer_argument,
    setting_options,
    user_option,
)
from archipelago.cli.output import note
from archipelago.cli.start import summarize

__all__ = ["command"]


@click.command("restart", epilog=f"{PEER_HELP}  Example: archipelago restart vlmcd")
@peer_argument
@user_option
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Stop and start even while volumes are open, if a changed setting needs it.",
)
@setting_options
@common_options
def command(
    peer: str | None, force: bool, options: tuple[str, ...], **named: str | None
) -> None:
    """Restart archipelago, or one PEER, with the settings read again.

    Segment and sockets stay, so that clients find them where they were.  Only when a
    setting changed that shapes them is everything stopped and started; that is refused
    while volumes are open, unless forced.  Without a running instance one is started.
    """
    from archipelago.settings import load_settings
    from archipelago.supervisor.client import NoSupervisor, ask
    from archipelago.supervisor.launch import launch

    common = Common.current()
    overrides = gather(options, **named)
    settings = load_settings(common.home, **overrides)
    where = settings.locations
    try:
        answer = ask(where, "restart", peer=peer, overrides=overrides)
    except NoSupervisor:
        if peer is not None:
            raise
        summarize(launch(settings, overrides), common)
        return
    if answer["changed"]:
        if peer is not None:
            raise click.UsageError(
                f"{', '.join(answer['changed'])} changed, which takes a restart of all "
                "peers: 'archipelago restart'"
            )
        ask(where, "stop", force=force, until_end=True)
        summarize(launch(settings, overrides), common)
        return
    status: dict[str, Any] = ask(where, "status")
    if peer is None or common.json:
        summarize(status, common)
    elif status["placement"] == "together":
        note(f"{peer} is running; the peers of its process restarted with it")
    else:
        note(f"{peer} is running")
