# SPDX-License-Identifier: Apache-2.0
"""What is measured: something that serves an NBD export."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A served image.

    Attributes:
        name: short name for tables.
        uri: NBD URI.
        command: what was typed to serve it, for the report.
    """

    name: str
    uri: str
    command: str


@contextlib.contextmanager
def serving(
    name: str, argv: list[str], socket: Path, export: str = ""
) -> Iterator[Target]:
    """Run a server in the foreground until the block ends; ready when its socket is."""
    socket.unlink(missing_ok=True)
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        while not socket.is_socket():
            if server.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended with {server.returncode}")
        yield Target(name, f"nbd+unix:///{export}?socket={socket}", " ".join(argv))
    finally:
        server.terminate()
        server.wait()
        socket.unlink(missing_ok=True)
