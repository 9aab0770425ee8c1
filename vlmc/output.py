# SPDX-License-Identifier: Apache-2.0
"""How ``vlmc`` shows volumes: JSON for programs, words for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from archipelago.cli.base import Common
from archipelago.cli.output import write_fields, write_json, write_table

if TYPE_CHECKING:
    from archipelago.info import VolumeInfo

__all__ = [
    "done",
    "info_json",
    "size_text",
    "talk",
    "write_fields",
    "write_json",
    "write_table",
]

#: Members of a volume's JSON, in this order; the usage only where it was counted.
_KEYS = (
    "name",
    "uuid",
    "kind",
    "size",
    "block_size",
    "epoch",
    "read_only",
    "parent",
    "created",
    "depth",
    "private_bytes",
    "shared_bytes",
)


def info_json(info: VolumeInfo) -> dict[str, Any]:
    """The documented members of a volume."""
    members = info.to_json()
    return {key: members[key] for key in _KEYS if key in members}


def size_text(size: int | None) -> str | None:
    """A size for people: "10 GiB"."""
    from archipelago.units import format_size

    return None if size is None else format_size(size)


def talk(line: str) -> None:
    """Tell a person at a terminal what was done; scripts have the exit code."""
    if sys.stderr.isatty():
        click.echo(line, err=True)


def done(info: VolumeInfo, line: str) -> None:
    """Report a change: the volume as JSON, or a line for people."""
    if Common.current().json:
        write_json(info_json(info))
    else:
        talk(line)
