# SPDX-License-Identifier: Apache-2.0
"""What a dead process left at a living one is waited for."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from archipelago.errors import BackendUnavailable
from archipelago.volume import departed
from archipelago.volume.departed import await_departed
from xseg import Segment
from xseg.constants import PORT_BLOCKERB, PORT_BLOCKERM, PORT_MAPPERD, Op
from xseg.testing import unique_name

_SENDER = """
import os, sys
from xseg import Segment
port = Segment.attach(sys.argv[1]).bind()
for op in sys.argv[3:]:
    request = port.request()
    request.op = int(op)
    port.submit(request, int(sys.argv[2]))
os._exit(0)
"""


@pytest.fixture
def segment() -> Iterator[Segment]:
    name = unique_name("departed")
    with Segment.create(name) as segment:
        try:
            yield segment
        finally:
            Segment.destroy(name)


def leave(segment: Segment, port: int, *ops: Op) -> None:
    """Send requests and die."""
    words = [segment.name, *map(str, (port, *(int(op) for op in ops)))]
    subprocess.run([sys.executable, "-c", _SENDER, *words], check=True)


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize(
    ("port", "op"),
    [
        (PORT_BLOCKERB, Op.WRITE),
        (PORT_BLOCKERM, Op.UPDATE),
        (PORT_BLOCKERM, Op.RELEASE),
        (PORT_BLOCKERM, Op.APPEND),
        (PORT_MAPPERD, Op.UPDATE),
    ],
)
def test_what_the_dead_asked_for_is_waited_for(
    segment: Segment, monkeypatch: pytest.MonkeyPatch, port: int, op: Op, accepted: bool
) -> None:
    with segment.bind(port, "server") as server:
        await_departed(segment)
        leave(segment, port, op)
        request = server.accept() if accepted else None
        monkeypatch.setattr(departed, "PATIENCE", 0.0)
        with pytest.raises(BackendUnavailable, match="do not end"):
            await_departed(segment)
        monkeypatch.setattr(departed, "PATIENCE", 60.0)
        waiter = threading.Thread(target=await_departed, args=(segment,))
        waiter.start()
        request = request or server.accept()
        assert request is not None and request.op == op
        server.complete(request, 0)
        waiter.join()


def test_who_only_waited_for_news_is_not_waited_for(segment: Segment) -> None:
    with segment.bind(PORT_BLOCKERM, "blockerm") as blocker:
        leave(segment, PORT_BLOCKERM, Op.NOTIFY)
        notify = blocker.accept()
        assert notify is not None
        await_departed(segment)
        blocker.complete(notify, 0)
