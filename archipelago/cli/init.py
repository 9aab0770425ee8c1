# SPDX-License-Identifier: Apache-2.0
"""``archipelago init``."""

from __future__ import annotations

import click

from archipelago.cli.base import Common, common_options
from archipelago.cli.options import gather, setting_options
from archipelago.cli.output import note, write_json

__all__ = ["command"]


@click.command("init", epilog="Example: archipelago init -o data_path=/srv/data")
@setting_options
@common_options
def command(options: tuple[str, ...], **named: str | None) -> None:
    """Make a new store in two directories that hold none.

    'archipelago start' does the same at its first start.  Later it refuses empty
    directories, because the disks of the store may only not be mounted; then this
    command begins a new store.
    """
    from archipelago.settings import load_settings
    from archipelago.supervisor import ground, store
    from archipelago.supervisor.lock import PidLock

    common = Common.current()
    settings = load_settings(common.home, **gather(options, **named))
    ground.prepare_new(settings)
    lock = PidLock.acquire(settings.pid_file)
    try:
        uuid = store.init(settings)
    finally:
        lock.release()
    if common.json:
        write_json({"store": uuid})
    else:
        note(f"store {uuid} is made in {settings.data_path} and {settings.maps_path}")
