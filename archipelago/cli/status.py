# SPDX-License-Identifier: Apache-2.0
"""``archipelago status [PEER]``."""

from __future__ import annotations

from typing import Any

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.options import PEER_HELP, peer_argument, user_option
from archipelago.cli.output import write_json, write_table

__all__ = ["command", "stopped"]

_NOT_RUNNING = 8
_NOT_ANSWERING = 10
#: States of a peer that lives and serves nothing.
_UNWELL = ("hung", "unbound")


@click.command("status", epilog=f"{PEER_HELP}  Example: archipelago status --json")
@peer_argument
@user_option
@common_options
@click.pass_context
def command(ctx: click.Context, peer: str | None) -> None:
    """Show whether archipelago, or one PEER, is running.

    The exit code is 8 if it is not, and 10 if a peer lives but serves nothing.
    """
    from archipelago.paths import locate
    from archipelago.supervisor.client import NoSupervisor, ask

    common = Common.current()
    try:
        status = ask(locate(common.home), "status")
    except NoSupervisor:
        status = stopped(common.home)
    peers = [p for p in status["peers"] if peer in (None, p["name"])]
    status["peers"] = peers
    if common.json:
        write_json(status)
    else:
        _show(status)
    ctx.exit(_code(status, peer))


def _code(status: dict[str, Any], peer: str | None) -> int:
    states = [p["state"] for p in status["peers"]]
    if any(state in _UNWELL for state in states):
        return _NOT_ANSWERING
    up = status["running"] and (peer is None or states == ["running"])
    return 0 if up else _NOT_RUNNING


def stopped(home: str | None) -> dict[str, Any]:
    """The status of an instance that does not run."""
    from archipelago.errors import ConfigError
    from archipelago.settings import load_settings
    from archipelago.supervisor import report

    try:
        return report.stopped(load_settings(home))
    except ConfigError as error:
        return report.misconfigured(error)


def _show(status: dict[str, Any]) -> None:
    if status["pid"] is None:
        click.echo("archipelago is not running; 'archipelago start' starts it")
        for line in status["notes"]:
            click.echo(f"note: {line}")
        return
    unwell = [f"{p['name']} {p['state']}" for p in status["peers"]]
    unwell = [line for line in unwell if line.endswith(_UNWELL)]
    head = "is running" if not unwell else f"is up but not well, {', '.join(unwell)}"
    click.echo(
        f"archipelago {head} (pid {status['pid']}, up {_span(status['uptime'])}): "
        f"peers {status['placement']}, {status['backend']} backend, "
        f"{status['engine']} engine"
    )
    for address in status["nbd"]:
        click.echo(f"NBD clients connect to {address}")
    click.echo()
    write_table(
        ["PEER", "STATE", "PID", "UPTIME", "OPS", "ERRORS", "QUEUE", "RESTARTS"],
        [
            [
                p["name"],
                p["state"],
                p["pid"],
                _span(p["uptime"]),
                p["ops"],
                p["errors"],
                p["queue_depth"],
                p["restarts"],
            ]
            for p in status["peers"]
        ],
        right="llrrrrrr",
    )
    for line in status["notes"]:
        click.echo(f"note: {line}")


def _span(seconds: float) -> str:
    """A time as its two largest units: "3d 4h", "12s"."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
