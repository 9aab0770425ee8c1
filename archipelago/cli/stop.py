# SPDX-License-Identifier: Apache-2.0
"""``archipelago stop [-f] [PEER]``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.options import PEER_HELP, peer_argument, user_option
from archipelago.cli.output import note, write_json

__all__ = ["command"]


@click.command("stop", epilog=f"{PEER_HELP}  Example: archipelago stop")
@peer_argument
@user_option
@click.option("-f", "--force", is_flag=True, help="Stop even while volumes are open.")
@common_options
def command(peer: str | None, force: bool) -> None:
    """Stop archipelago, or one PEER, which then stays stopped until it is started.

    While volumes are open it refuses, unless forced.  What was acknowledged is flushed
    first; a stop of the whole starts peers for that which were stopped before.  What
    was flushed is kept in any case.

    With placement "together" a PEER shares its process with the others, which restart
    without it.
    """
    from archipelago.paths import locate
    from archipelago.supervisor.client import ask

    common = Common.current()
    where = locate(common.home)
    if peer is not None:
        ask(where, "stop", peer=peer, force=force)
        if common.json:
            write_json(ask(where, "status"))
            return
    else:
        ask(where, "stop", force=force, until_end=True)
        if common.json:
            from archipelago.cli.status import stopped

            write_json(stopped(common.home))
            return
    note(f"{peer or 'archipelago'} is stopped")
