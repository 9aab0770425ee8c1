# SPDX-License-Identifier: Apache-2.0
"""The echo peer of the documentation works as it stands there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import xseg

ECHO = Path(__file__).parents[3] / "docs" / "examples" / "echo.py"
ECHO_PORT = 9


def test_the_echo_peer_answers_and_ends(segment: xseg.Segment) -> None:
    with subprocess.Popen([sys.executable, str(ECHO), segment.name]) as peer:
        while not any(port.id == ECHO_PORT for port in segment.ports()):
            assert peer.poll() is None
            time.sleep(0.01)
        with segment.bind() as port, segment.alloc(5) as buffer, port.request() as rq:
            rq.op = xseg.Op.PING
            with memoryview(buffer) as into:
                into[:] = b"hello"
            rq.set_data(buffer)
            assert port.call(rq, ECHO_PORT, timeout=60) == 5
            rq.op = xseg.Op.CLOSE
            assert port.call(rq, ECHO_PORT, timeout=60) == 5
        assert peer.wait(60) == 0
