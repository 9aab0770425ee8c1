# SPDX-License-Identifier: Apache-2.0
"""Writes that a dead process left at a living one are waited for."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from archipelago.errors import BackendUnavailable
from archipelago.volume import departed
from archipelago.volume.departed import await_departed
from xseg import Segment
from xseg.constants import PORT_BLOCKERB, Op
from xseg.testing import unique_name

_SENDER = """
import os, sys
from xseg import Segment
from xseg.constants import PORT_BLOCKERB, Op
port = Segment.attach(sys.argv[1]).bind()
request = port.request()
request.op = Op.WRITE
port.submit(request, PORT_BLOCKERB)
os._exit(0)
"""


def test_await_departed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique_name("departed")
    with Segment.create(name) as segment:
        try:
            with segment.bind(PORT_BLOCKERB, "blockerb") as blocker:
                await_departed(segment)
                with subprocess.Popen([sys.executable, "-c", _SENDER, name]) as sender:
                    while (write := blocker.accept()) is None:
                        blocker.wait(1.0)
                assert sender.returncode == 0
                monkeypatch.setattr(departed, "PATIENCE", 0.0)
                with pytest.raises(BackendUnavailable, match="do not end"):
                    await_departed(segment)
                monkeypatch.setattr(departed, "PATIENCE", 60.0)
                waiter = threading.Thread(target=await_departed, args=(segment,))
                waiter.start()
                assert write.op == Op.WRITE
                blocker.complete(write, 0)
                waiter.join()
        finally:
            Segment.destroy(name)
