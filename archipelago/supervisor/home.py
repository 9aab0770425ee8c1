# SPDX-License-Identifier: Apache-2.0
"""The directories without which an instance is nothing: its state and its store.

An instance whose directories were all deleted while it ran has nothing left to serve;
its supervisor notices and ends it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from archipelago.settings import Settings

__all__ = ["Home"]


class Home:
    """Holds the directories open, so that their deletion shows, not their renaming.

    Args:
        fds: descriptors of the directories; none: it cannot be gone.
    """

    def __init__(self, fds: Iterable[int] = ()) -> None:
        self._fds = list(fds)

    @classmethod
    def of(cls, settings: Settings) -> Home:
        """Open the directories of an instance; they exist."""
        paths = [settings.state_dir]
        if settings.backend == "file":
            paths += [settings.data_path, settings.maps_path]
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return cls(os.open(path, flags) for path in paths)

    def gone(self) -> bool:
        """Whether all of them were deleted.

        Source: a directory that was removed has no links, stat(2).  Btrfs counts no
        links of directories; there a removed one has none as well.
        """
        return bool(self._fds) and all(_removed(fd) for fd in self._fds)

    def close(self) -> None:
        """Let the directories go."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def _removed(fd: int) -> bool:
    try:
        return os.fstat(fd).st_nlink == 0
    except OSError as error:
        return error.errno == errno.ESTALE  # as NFS says it
