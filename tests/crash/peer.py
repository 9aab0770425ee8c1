# SPDX-License-Identifier: Apache-2.0
"""A peer process of a workload: the real one, but for what is done in the background.

Checkpoints, merging and reclaiming run all the time, at limits that small volumes
reach.  Reads its configuration from standard input and says "ready".
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import archipelago.control.maintenance as maintenance
import archipelago.volume.left as left
from archipelago.control import ControlService
from archipelago.peers.runner import PeerConfig, PeerRunner
from archipelago.volume.context import Limits


class _Runner(PeerRunner):
    def __init__(self, config: PeerConfig, limits: Limits, host: str) -> None:
        super().__init__(config)
        self._peer = config
        self._limits = limits
        self._host = host

    def _make_control(self) -> ControlService:
        return ControlService(
            self._peer.segment,
            instance_file=Path(self._peer.instance_file),
            lease_ttl=self._peer.lease_ttl,
            host=self._host,
            limits=self._limits,
            block_size=self._peer.block_size,
            nonce=bytes.fromhex(self._peer.nonce),
        )


def main() -> int:
    """Run the roles; returns the exit status."""
    maintenance._PERIOD = 0.01
    # vlmcd needs the same time as ever to come back for what it has open.
    left.ROUNDS = 1000
    logging.basicConfig(level=logging.WARNING, format="%(process)d %(message)s")
    line = bytearray()
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    told: dict[str, Any] = json.loads(line)
    runner = _Runner(
        PeerConfig(**told["config"]), Limits(**told["limits"]), told["host"]
    )
    return runner.run(lambda _: print("ready", flush=True), 0)


if __name__ == "__main__":
    sys.exit(main())
