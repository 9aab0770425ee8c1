# SPDX-License-Identifier: Apache-2.0
"""Whether the answer to a slow request is still wanted.

A slow request is made of many small ones to the native peers.  Before each of those,
the worker looks whether the client is still there and whether the service still runs;
if not, the slow request ends there with an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from archipelago.errors import NotRunning
from archipelago.messenger import Call, Messenger, Reply
from xseg import Segment
from xseg.constants import Op

__all__ = ["ControlMessenger", "Wanted"]

#: Shortest time between two looks at the segment's ports [s].
_LOOK = 0.25
#: Requests of which slow work is made.  Others clean up behind it and always go on.
_STEPS = frozenset({Op.MAPR, Op.LIST, Op.READ, Op.INFO})


class Wanted:
    """One slow request's client, as it was when the request arrived.

    Args:
        segment: of the instance.
        port: the port that the request came from.
        ending: set when the service ends.
    """

    def __init__(self, segment: Segment, port: int, ending: threading.Event) -> None:
        self._segment = segment
        self._port = port
        self._ending = ending
        self._bound = self._binding()
        self._looked = time.monotonic()

    def check(self) -> None:
        """Return if the answer is wanted.

        Raises:
            NotRunning: the client has gone, or mapperd ends.
        """
        if self._ending.is_set():
            raise NotRunning("mapperd ends: the request was given up")
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        if self._binding() != self._bound:
            raise NotRunning("the client has gone: the request was given up")

    def _binding(self) -> int | None:
        """When the client bound its port [ns]; None if it is not there."""
        for port in self._segment.ports():
            if port.id == self._port and port.alive:
                return port.bound_ns
        return None


class ControlMessenger(Messenger):
    """The control half's messenger: slow work asks it whether it is still wanted."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment, "control")
        self._working = threading.local()

    def work_for(self, wanted: Wanted | None) -> None:
        """Say for whom this thread works from now on; None for requests that stay."""
        self._working.wanted = wanted

    def send(self, call: Call) -> Reply:
        """As `Messenger.send`, unless the client has gone."""
        self._check(call.op)
        return super().send(call)

    def send_many(self, calls: Iterable[Call]) -> list[Reply]:
        """As `Messenger.send_many`, unless the client has gone."""
        todo = list(calls)
        for call in todo[:1]:
            self._check(call.op)
        return super().send_many(todo)

    def _check(self, op: Op) -> None:
        wanted: Wanted | None = getattr(self._working, "wanted", None)
        if wanted is not None and op in _STEPS:
            wanted.check()
