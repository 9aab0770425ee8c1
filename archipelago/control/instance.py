# SPDX-License-Identifier: Apache-2.0
"""Who this instance is: a uuid that survives restarts, so that it keeps its leases."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

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
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and linked: what has the name is whole, and the first one wins.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="ascii") as file:
        file.write(f"{uuid.uuid4()}\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return _read(path)


def _read(path: Path) -> bytes:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise ConfigError(
            f"{path} does not hold the uuid of an instance: remove it, and this "
            "instance becomes a new one"
        ) from None
