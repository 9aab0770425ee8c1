# SPDX-License-Identifier: Apache-2.0
"""Running other projects' NBD clients against an export."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass

from tests.helpers.instance import Instance

MIB = 1 << 20


@dataclass
class Export:
    """One volume and where clients find it."""

    instance: Instance
    name: str
    size: int

    @property
    def url(self) -> str:
        return self.instance.vlmc("url", self.name).strip()

    def snapshot(self) -> Export:
        name = f"{self.name}-snap"
        self.instance.vlmc("snapshot", self.name, name)
        return Export(self.instance, name, self.size)


def tool(*args: str | os.PathLike[str], exit_code: int = 0) -> str:
    """Run a client to its end; its standard output."""
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert done.returncode == exit_code, f"{args}\n{done.stdout}{done.stderr}"
    return done.stdout


def libnbd_python() -> str | None:
    """An interpreter with libnbd's bindings: distributions build them for theirs."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            found = subprocess.run([python, "-c", "import nbd"], capture_output=True)
            if found.returncode == 0:
                return python
    return None
