# SPDX-License-Identifier: Apache-2.0
"""The instance a command works on, and what commands say about its volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archipelago.cli.base import Common, size_callback

if TYPE_CHECKING:
    import archipelago

__all__ = [
    "block_size_option",
    "complete_volumes",
    "connect",
    "new_name_argument",
    "volume_argument",
]

AnyCallback = TypeVar("AnyCallback", bound=Callable[..., Any])

#: Names that completion offers at most.
_COMPLETIONS = 200


def connect() -> archipelago.Client:
    """Connect to the instance that ``--home`` or the environment names."""
    import archipelago

    return archipelago.connect(Common.current().home)


def volume_argument(
    name: str = "name", **attributes: Any
) -> Callable[[AnyCallback], AnyCallback]:
    """Add an argument that is the name of a volume; the shell completes it."""
    return click.argument(name, shell_complete=complete_volumes, **attributes)


def new_name_argument(
    name: str = "name", **attributes: Any
) -> Callable[[AnyCallback], AnyCallback]:
    """Add an argument that is a name yet to be taken."""
    return click.argument(name, **attributes)


def block_size_option(command: AnyCallback) -> AnyCallback:
    """Add ``--block-size``, for commands that make a volume."""
    return click.option(
        "--block-size",
        metavar="SIZE",
        callback=size_callback,
        help="Its block: a power of two from 64K to 4M (default: as set).",
    )(command)


def complete_volumes(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[str]:
    """Offer the names that begin so; none if the instance does not answer."""
    import itertools

    common = ctx.find_root().ensure_object(Common)
    try:
        import archipelago

        with archipelago.connect(common.home) as client:
            volumes = itertools.islice(client.list(prefix=incomplete), _COMPLETIONS)
            return [volume.name for volume in volumes]
    except Exception:
        return []  # a completion shows no errors
