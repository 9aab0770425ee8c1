# SPDX-License-Identifier: Apache-2.0
"""Who this instance is: a uuid that survives restarts, so that it keeps its leases."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from archipelago.durable import sync_directory
from archipelago.errors import ConfigError


def instance_uuid(path: Path | None) -> bytes:
    """Read the instance's uuid from its file, making both if they are not there.

    Args:
        path: the file; None makes a uuid for this run only.

    Returns:
        16 bytes.

    Raises:
        ConfigError: the file holds something else.
    """
    if path is None:
        return uuid.uuid4().bytes
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    # Written aside and linked: what has the name is whole, and the first one wins.
    aside = _write_aside(path)
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    sync_directory(path.parent)
    return _read(path)


def replace_uuid(path: Path) -> bytes:
    """Give the instance a new uuid, durably; the wish for it is fulfilled.

    Returns:
        The new uuid, 16 bytes.
    """
    _write_aside(path).replace(path)
    sync_directory(path.parent)
    _wish(path).unlink(missing_ok=True)
    return _read(path)


@contextlib.contextmanager
def new_identity_wanted(path: Path, wanted: bool) -> Iterator[None]:
    """Say whether an instance that is started in the ``with`` block takes a new uuid.

    The uuid is replaced when the store can be asked (`archipelago.control.identity`).

    Args:
        path: the file of the uuid.
        wanted: False also forgets the wish of a command that was killed.
    """
    wish = _wish(path)
    if wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        wish.touch()
    elif wish.exists():
        wish.unlink()
    try:
        yield
    finally:
        if wanted:
            wish.unlink(missing_ok=True)


def wants_new_identity(path: Path) -> bool:
    """True if the start of this instance is to give it a new uuid."""
    return _wish(path).exists()


def _wish(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _write_aside(path: Path) -> Path:
    """Write a fresh uuid, durably, to a file beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="ascii") as file:
        file.write(f"{uuid.uuid4()}\n")
        file.flush()
        os.fsync(file.fileno())
    return aside


def _read(path: Path) -> bytes:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise ConfigError(
            f"{path} does not hold the uuid of an instance: remove it, and this "
            "instance becomes a new one"
        ) from None
