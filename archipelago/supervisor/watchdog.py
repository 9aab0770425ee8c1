# SPDX-License-Identifier: Apache-2.0
"""The watchdog: finds peers that live and do not answer.

Runs on the supervisor's event loop.  Each port of a peer gets a PING once a second,
which a peer answers from its own loop: it waits for no store and for no other peer.  So
a store that hangs is not the peer's fault, and only a peer that hangs itself is silent.

A peer that is silent for a while is reported as hung; one that is silent for the time
of the setting ``watchdog`` is ended, and started again like one that died.

A busy machine is no proof: only time counts in which this very process came to run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from archipelago.peers.ports import PORTS
from xseg import Port, Request, Segment
from xseg.aio import AsyncPort
from xseg.constants import PORT_ANY, PORT_CONTROL, Op
from xseg.errors import PortUnbound, WouldBlock, XsegError

__all__ = ["HUNG_AFTER", "Watchdog"]

log = logging.getLogger(__name__)

#: Time between two PINGs to a port, and between two looks for the answer [s].
_PERIOD = 1.0
#: Most that one look adds to a peer's silence [s]: if more time has passed, this
#: process did not come to run either.
_STEP_MOST = 2.0
#: A peer that has been silent for so long is reported as hung [s].
HUNG_AFTER = 5.0


class Watchdog:
    """Watches the ports of all peers.

    Args:
        segment: of the instance.
        deadline: says after how much silence a peer is ended [s]; 0: never.
        replace: ends the process of a role; gets the role and why.
    """

    def __init__(
        self,
        segment: Segment,
        deadline: Callable[[], float],
        replace: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._deadline = deadline
        self._replace = replace
        self._port: Port = segment.bind(PORT_ANY, "watchdog")
        self._calls = AsyncPort(self._port)
        self._silence: dict[int, float] = {}
        watched = [*PORTS.items(), ("mapperd", PORT_CONTROL)]
        self._tasks = [
            asyncio.create_task(self._watch(role, port)) for role, port in watched
        ]

    def silence(self, role: str) -> float:
        """How long a peer has not answered [s]."""
        ports = [PORTS[role], *([PORT_CONTROL] if role == "mapperd" else [])]
        return max(self._silence.get(port, 0.0) for port in ports)

    async def close(self) -> None:
        """End the watch and give its port back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            self._calls.close()
            self._port.unbind()
        except XsegError as error:
            log.warning("the watchdog's port: %s", error)  # of an unsound segment

    async def _watch(self, role: str, port: int) -> None:
        while True:
            await asyncio.sleep(_PERIOD)
            try:
                await self._ask(role, port)
            except PortUnbound:
                pass  # `status` says so
            except XsegError as error:
                log.warning("the watchdog cannot ask %s: %s", role, error)
            self._silence[port] = 0.0

    async def _ask(self, role: str, port: int) -> None:
        """Send a PING and wait until it is answered, or its peer has died.

        Raises:
            PortUnbound: the peer does not serve.
            XsegError: the segment has no room for the PING.
        """
        with self._port.request() as request:
            request.op = Op.PING
            answer = asyncio.ensure_future(self._send(request, port))
            try:
                await self._count(role, port, answer)
            finally:
                answer.cancel()

    async def _send(self, request: Request, port: int) -> int:
        while True:
            try:
                return await self._calls.call(request, port)
            except WouldBlock:  # its ring is full: it takes nothing either
                await asyncio.sleep(_PERIOD)

    async def _count(self, role: str, port: int, answer: asyncio.Future[int]) -> None:
        looked = time.monotonic()
        ended = False
        while not answer.done():
            await asyncio.wait([answer], timeout=_PERIOD)
            now = time.monotonic()
            step, looked = min(now - looked, _STEP_MOST), now
            if answer.done():
                break
            silence = self._silence.get(port, 0.0) + step
            self._silence[port] = silence
            deadline = self._deadline()
            if deadline and silence >= deadline and not ended:
                ended = True
                await self._replace(role, f"has not answered for {silence:.0f} s")
        answer.result()
