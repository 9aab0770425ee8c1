# SPDX-License-Identifier: Apache-2.0
"""The command ``vlmc``: which commands there are."""

from __future__ import annotations

import click

from archipelago.cli.base import Entry, LazyGroup, common_options, run
from archipelago.cli.options import version_option

__all__ = ["cli", "main"]


@click.group(
    "vlmc",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    entries={
        "create": Entry("vlmc.create", "Create a volume, empty or from a snapshot."),
        "snapshot": Entry("vlmc.snapshot", "Take a snapshot of a volume."),
        "clone": Entry("vlmc.clone", "Make volumes from a snapshot."),
        "remove": Entry("vlmc.remove", "Remove volumes and snapshots."),
        "rm": Entry("vlmc.remove", "Remove volumes and snapshots.", alias=True),
        "list": Entry("vlmc.list", "List volumes and snapshots."),
        "ls": Entry("vlmc.list", "List volumes and snapshots.", alias=True),
        "info": Entry("vlmc.info", "Show everything known of a volume."),
        "rename": Entry("vlmc.rename", "Give a volume another name."),
        "resize": Entry("vlmc.resize", "Make a volume larger or smaller."),
        "open": Entry("vlmc.open", "Open a volume and keep it open."),
        "close": Entry("vlmc.close", "Close what 'open' opened."),
        "lock": Entry("vlmc.lock", "Lock a volume for this instance."),
        "unlock": Entry("vlmc.unlock", "Unlock a volume, or break a lock."),
        "import": Entry("vlmc.import_", "Import a disk image."),
        "export": Entry("vlmc.export", "Write a volume to a sparse file."),
        "map": Entry("vlmc.map", "Make a volume a block device."),
        "unmap": Entry("vlmc.unmap", "Undo 'map'."),
        "showmapped": Entry("vlmc.showmapped", "List volumes that are block devices."),
        "mount": Entry("vlmc.mount", "Show all volumes as files in a directory."),
        "unmount": Entry("vlmc.unmount", "Undo 'mount'."),
        "url": Entry("vlmc.url", "Print the NBD URL of a volume."),
        "xml": Entry("vlmc.xml", "Print the libvirt <disk> element of a volume."),
        "df": Entry("vlmc.df", "Show how full the store is."),
        "completion": Entry("archipelago.cli.completion", "Print a completion script."),
    },
)
@version_option
@common_options
def cli() -> None:
    """Manage the volumes and snapshots of an instance of archipelago.

    Sizes take a suffix (10G, 512M); a bare number is in MiB.  The instance must run:
    'archipelago start' starts it.
    """


def main() -> None:
    """Run the command line; does not return."""
    run(cli, "vlmc")
