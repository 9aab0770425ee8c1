# SPDX-License-Identifier: Apache-2.0
"""Ports in asyncio: the doorbell as a file descriptor of the loop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from types import TracebackType

from xseg._port import Port
from xseg._request import Request

__all__ = ["AsyncPort"]


class AsyncPort:
    """Calls on a port without blocking the loop.

    Everything runs on the loop's thread.  The port is this object's until `close`,
    which does not unbind it.

    Args:
        port: A bound port that nobody else uses.
        on_request: Called with each request that arrives; it answers now or later by
            ``port.complete``.  None refuses them with EOPNOTSUPP.
    """

    def __init__(
        self, port: Port, on_request: Callable[[Request], None] | None = None
    ) -> None:
        self._port = port
        self._on_request = on_request
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._fd = port.fileno()
        self._closed = False
        self._loop.add_reader(self._fd, self._ready)
        self._loop.call_soon(self._ready)

    async def call(self, rq: Request, dst: int) -> int:
        """Send a request and wait for its reply.

        A call that is cancelled leaves the request in flight: `Request.free` gives it
        back when its reply has come.

        Args:
            rq: A request of the port.
            dst: Port that serves it.

        Returns:
            The request's result: bytes or count, or a negated errno.

        Raises:
            XsegError: It could not be sent, as from `Port.submit`.
        """
        self._port.submit(rq, dst)
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting[rq.index] = future
        return await future

    def _ready(self) -> None:
        """Take all that came; then arm the bell and look once more before sleeping."""
        if self._closed:
            return
        self._port.disarm()
        while (reply := self._port.reap()) is not None:
            future = self._waiting.pop(reply.index, None)
            if future is not None and not future.done():
                future.set_result(reply.result)
        while (rq := self._port.accept()) is not None:
            if self._on_request is not None:
                self._on_request(rq)
            else:
                self._port.complete(rq, -errno.EOPNOTSUPP)
        self._port.arm()
        if self._port.pending:
            self._port.disarm()
            self._loop.call_soon(self._ready)

    def close(self) -> None:
        """Leave the loop; calls that still wait are cancelled."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        if not self._port.closed:
            self._port.disarm()
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()

    async def __aenter__(self) -> AsyncPort:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
