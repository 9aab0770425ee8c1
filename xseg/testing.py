# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of anything that speaks through a segment."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterator

from xseg._port import Port
from xseg._request import Request
from xseg._segment import Segment
from xseg.closing import Closing
from xseg.constants import PORT_ANY, Op
from xseg.errors import NotFound, XsegError

__all__ = ["EchoPeer", "temporary_segment", "unique_name"]

_SMALLEST_HEAP = 16 << 20


def unique_name(prefix: str = "test") -> str:
    """Return a segment name that nobody uses."""
    return f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def temporary_segment(
    *, ports: int = 0, requests: int = 64, heap_bytes: int = _SMALLEST_HEAP
) -> Iterator[Segment]:
    """Create a small segment under a unique name; close and destroy it after."""
    segment = Segment.create(
        unique_name(), ports=ports, requests=requests, heap_bytes=heap_bytes
    )
    try:
        yield segment
    finally:
        with contextlib.suppress(NotFound):
            Segment.destroy(segment.name)
        segment.close()


class EchoPeer(Closing):
    """A thread that serves a port over an attachment of its own.

    By default READ and WRITE answer their size, and everything else 0, with the data
    left as it is.

    Args:
        name: Of the segment.
        port: To bind.
        handler: Called on the peer's thread with each request; what it returns is the
            result.  An `XsegError` it raises becomes a negated errno, anything else
            EIO, and `close` raises it.
    """

    def __init__(
        self,
        name: str,
        port: int = PORT_ANY,
        handler: Callable[[Request], int] | None = None,
    ) -> None:
        self._handler = handler or _echo
        self._segment = Segment.attach(name)
        try:
            self._port = self._segment.bind(port, "echo")
        except BaseException:
            self._segment.close()
            raise
        self.port = self._port.id
        self.served = 0
        self._failure: BaseException | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="echo", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopping:
            self._port.wait()
            while (rq := self._port.accept()) is not None:
                self._answer(self._port, rq)

    def _answer(self, port: Port, rq: Request) -> None:
        if self._stopping:
            port.complete(rq, -errno.ECANCELED)
            return
        try:
            result = self._handler(rq)
        except XsegError as error:
            result = -(error.errno or errno.EIO)
        except BaseException as error:
            self._failure = error
            result = -errno.EIO
        port.complete(rq, result)
        self.served += 1

    def close(self) -> None:
        """Stop the thread and unbind; raise what the handler raised."""
        if self._thread.is_alive():
            self._stopping = True
            self._wake()
            self._thread.join()
        self._segment.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _wake(self) -> None:
        """Send one request, so that the thread looks at its flag."""
        with self._segment.bind() as port, port.request() as rq:
            rq.op = Op.PING
            with contextlib.suppress(XsegError):
                port.call(rq, self.port)


def _echo(rq: Request) -> int:
    return rq.size if rq.op in (Op.READ, Op.WRITE) else 0
