# SPDX-License-Identifier: Apache-2.0
"""What the commands for devices and mounts share."""

from __future__ import annotations

import os
from pathlib import Path

from archipelago.cli.base import Common
from archipelago.errors import UsageError
from archipelago.mapping import instance_mount

__all__ = ["own_mount", "require_root"]


def require_root() -> None:
    """Refuse a user that the kernel would refuse.

    Raises:
        UsageError: the caller is not root.
    """
    if os.geteuid() != 0:
        raise UsageError(
            'block devices need root: use sudo, or "vlmc mount DIR" for files'
        )


def own_mount() -> Path:
    """The instance's own mount of its volumes, made if need be."""
    require_root()
    return instance_mount(Common.current().home)
