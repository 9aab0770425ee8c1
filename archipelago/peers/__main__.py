# SPDX-License-Identifier: Apache-2.0
"""A peer process, started by the supervisor.

Standard input brings the configuration as one JSON line and then stays open: its end
says that the supervisor is gone, and the peers stop in good order.  A JSON line on the
ready descriptor says ``{"prepared": true}`` when all is imported and the configuration
can come, which may be much later; another one says ``{"ready": true}``, or ``{"error":
"...", "exit_code": N}``: why not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from typing import Any


def main() -> int:
    """Run the roles; returns the exit status."""
    parser = argparse.ArgumentParser(prog="archipelago.peers")
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("name", help="shown by ps")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )

    def report(answer: dict[str, Any]) -> None:
        os.write(arguments.ready_fd, json.dumps(answer).encode() + b"\n")

    def ready(facts: dict[str, Any]) -> None:
        # A supervisor that has died reads nothing; the end of its pipe says so.
        with contextlib.suppress(BrokenPipeError):
            report({"ready": True, **facts})
        os.close(arguments.ready_fd)

    try:
        # Here, so that a broken installation is reported like any other failure.
        from archipelago.peers.runner import PeerConfig, PeerRunner

        with contextlib.suppress(BrokenPipeError):
            report({"prepared": True})
        line = _read_line(0)
        if not line:
            return 0  # was never needed
        config = PeerConfig(**json.loads(line))
        os.umask(config.umask)
        logging.getLogger().setLevel(_LEVELS[config.log_level])
        runner = PeerRunner(config)
        return runner.run(ready, 0)
    except Exception as error:
        logging.exception("cannot serve")
        # Once it was ready the supervisor reads no more: then the log has the reason.
        with contextlib.suppress(OSError):
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            report({"error": why, "exit_code": getattr(error, "exit_code", 1)})
        return 1


_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def _read_line(fd: int) -> bytes:
    """Read one line and not a byte more: the rest of the pipe is waited for later.

    Nothing, if the supervisor went away before it said what to do.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(fd, 1)
        if not piece:
            return b""
        line += piece
    return bytes(line)


if __name__ == "__main__":
    sys.exit(main())
