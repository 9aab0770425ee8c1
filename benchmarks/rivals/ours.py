# SPDX-License-Identifier: Apache-2.0
"""Archipelago itself: an instance with the file backend in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import archipelago
from benchmarks.target import Target

BIN = Path(sys.executable).parent


@contextlib.contextmanager
def instance(home: Path, **settings: str) -> Iterator[archipelago.Client]:
    """A running instance and a client of it."""
    env = dict(os.environ, ARCHIPELAGO_HOME=str(home))
    env.update({f"ARCHIPELAGO_{key.upper()}": value for key, value in settings.items()})
    quiet = {"check": True, "env": env, "stdout": subprocess.DEVNULL}
    subprocess.run([BIN / "archipelago", "start"], **quiet)  # type: ignore[call-overload]
    try:
        with archipelago.connect(home) as client:
            yield client
    finally:
        subprocess.run([BIN / "archipelago", "stop", "--force"], **quiet)  # type: ignore[call-overload]


def export(
    client: archipelago.Client, volume: str, name: str = "archipelago"
) -> Target:
    """A volume as a target."""
    return Target(name, client.url(volume), f"archipelago start  # volume {volume}")
