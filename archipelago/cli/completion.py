# SPDX-License-Identifier: Apache-2.0
"""``archipelago completion SHELL`` and ``vlmc completion SHELL``."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL.

    For bash, in ~/.bashrc: eval "$(vlmc completion bash)"; archipelago likewise.
    """
    from click.shell_completion import get_completion_class

    root = ctx.find_root()
    program = root.info_name or "vlmc"
    kind = get_completion_class(shell)
    assert kind is not None
    variable = f"_{program}_COMPLETE".replace("-", "_").upper()
    click.echo(kind(root.command, {}, program, variable).source())
