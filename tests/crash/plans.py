# SPDX-License-Identifier: Apache-2.0
"""The kinds of workloads: engines, placements, how often what is killed."""

from __future__ import annotations

from dataclasses import dataclass

from archipelago.volume.context import Limits

#: Everything that runs in the background does so all the time.
BUSY = Limits(checkpoint_bytes=100, stack_soft=1, stack_hard=2, stack_most=4)
#: Stacks grow as high as they may, and are merged only then.
DEEP = Limits(checkpoint_bytes=100, stack_soft=12, stack_hard=14, stack_most=20)


@dataclass(frozen=True)
class Plan:
    """One kind of workload.

    Attributes:
        engine: of the blockers.
        direct: data goes past the page cache.
        apart: each peer has a process of its own.
        limits: of the work in the background.
        kills: how many processes are killed in each session, about.
        ends: how each session but the last ends: "stop" in good order, "kill" by -9
            and the same instance comes back, "lose" by -9 and another node takes over.
        along: a second node lives from the first session to the last; volumes go to
            and fro, and after each session it goes on alone.
    """

    engine: str
    direct: bool = False
    apart: bool = False
    limits: Limits = BUSY
    kills: int = 0
    ends: tuple[str, ...] = ("stop", "kill")
    along: bool = False


PLANS = (
    Plan("io_uring", kills=3),
    Plan("threads", direct=True, ends=("lose", "stop")),
    Plan("io_uring", direct=True, limits=DEEP, ends=("lose", "kill")),
    Plan("threads", limits=DEEP, kills=3),
    Plan("io_uring", apart=True, kills=4, ends=("lose",)),
    Plan("threads", direct=True, apart=True, kills=4, ends=("kill",)),
    Plan("io_uring", kills=3, ends=("lose", "lose"), along=True),
    Plan(
        "threads", apart=True, limits=DEEP, kills=3, ends=("lose", "stop"), along=True
    ),
)
