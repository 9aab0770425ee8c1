# SPDX-License-Identifier: Apache-2.0
"""``vlmc xml NAME``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from archipelago.cli.base import Common, common_options
from vlmc.connection import connect, volume_argument
from vlmc.output import write_json

if TYPE_CHECKING:
    from archipelago import Client
    from archipelago.info import VolumeInfo

__all__ = ["command"]

#: Names that libvirt has for disks, and their buses.
_TARGET = re.compile(r"(vd|sd)[a-z][a-z0-9]*")
_BUSES = {"vd": "virtio", "sd": "scsi"}


@click.command("xml", epilog="Example: vlmc xml vm1 >disk.xml")
@volume_argument()
@click.option(
    "--by",
    type=click.Choice(["nbd", "device"]),
    default="nbd",
    show_default=True,
    help="How QEMU reaches the volume; a device is mapped before (vlmc map).",
)
@click.option(
    "--target", default="vda", show_default=True, help="Name of the disk in the guest."
)
@common_options
def command(name: str, by: str, target: str) -> None:
    """Print the <disk> element of libvirt for the volume or snapshot NAME.

    'virsh attach-device GUEST FILE' and 'virsh edit GUEST' take it.
    """
    if not _TARGET.fullmatch(target):
        raise click.BadParameter(
            f"{target!r} is no disk of a guest: write vda, vdb, sda ...",
            param_hint="--target",
        )
    with connect() as client:
        info = client.info(name, usage=False)
        text = (
            _by_nbd(client, info, target) if by == "nbd" else _by_device(info, target)
        )
    if Common.current().json:
        write_json({"name": name, "xml": text})
    else:
        click.echo(text)


def _by_nbd(client: Client, info: VolumeInfo, target: str) -> str:
    source = (
        f"<source protocol='nbd' name={_quoted(info.name)}>",
        f"  <host transport='unix' socket={_quoted(str(client.settings.nbd_socket))}/>",
        "</source>",
    )
    return _disk("network", "cache='writeback'", source, info, target)


def _by_device(info: VolumeInfo, target: str) -> str:
    from archipelago.errors import UsageError
    from archipelago.mapping import mappings
    from vlmc.mapped import own_mount

    for mapping in mappings(own_mount()):
        if mapping.volume == info.name:
            break
    else:
        cure = f"vlmc map {info.name}{' --read-only' if info.read_only else ''}"
        raise UsageError(f'"{info.name}" is no device here: map it first ({cure})')
    source = (f"<source dev={_quoted(mapping.device)}/>",)
    return _disk("block", "cache='none' io='native'", source, info, target)


def _disk(
    kind: str, driver: str, source: tuple[str, ...], info: VolumeInfo, target: str
) -> str:
    """The element; source: https://libvirt.org/formatdomain.html, "Hard drives"."""
    lines = [
        f"<disk type='{kind}' device='disk'>",
        f"  <driver name='qemu' type='raw' {driver} discard='unmap'/>",
        *(f"  {line}" for line in source),
        f"  <target dev='{target}' bus='{_BUSES[target[:2]]}'/>",
    ]
    if info.read_only:
        lines.append("  <readonly/>")
    return "\n".join([*lines, "</disk>"])


def _quoted(value: str) -> str:
    from xml.sax.saxutils import quoteattr

    return quoteattr(value)
