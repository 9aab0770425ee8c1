# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno

import pytest

from xseg import Op, Request, Segment
from xseg.aio import AsyncPort
from xseg.testing import EchoPeer


def test_calls_run_side_by_side(segment: Segment, echo: EchoPeer) -> None:
    async def run() -> list[int]:
        with segment.bind() as port:
            requests = [port.request() for _ in range(20)]
            async with AsyncPort(port) as bridge:
                for i, rq in enumerate(requests):
                    rq.op, rq.size = Op.READ, i
                results = await asyncio.gather(
                    *(bridge.call(rq, echo.port) for rq in requests)
                )
            for rq in requests:
                rq.free()
            return results

    assert asyncio.run(run()) == list(range(20))


def test_a_port_of_the_loop_serves(segment: Segment) -> None:
    async def run() -> int:
        with segment.bind() as near, segment.bind() as far:

            def answer(rq: Request) -> None:
                far.complete(rq, rq.size + 1)

            with near.request() as rq:
                rq.size = 41
                async with AsyncPort(near) as caller, AsyncPort(far, answer):
                    return await caller.call(rq, far.id)

    assert asyncio.run(run()) == 42


def test_requests_nobody_serves_are_refused(segment: Segment) -> None:
    async def run() -> int:
        with segment.bind() as near, segment.bind() as far, near.request() as rq:
            async with AsyncPort(near) as caller, AsyncPort(far):
                return await caller.call(rq, far.id)

    assert asyncio.run(run()) == -errno.EOPNOTSUPP


def test_closing_cancels_what_waits(segment: Segment) -> None:
    async def run() -> None:
        with segment.bind() as near, segment.bind() as far, near.request() as rq:
            bridge = AsyncPort(near)
            call = asyncio.ensure_future(bridge.call(rq, far.id))
            await asyncio.sleep(0)
            bridge.close()
            bridge.close()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(run())
    assert segment.statistics().nr_free_requests == 64
