# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 15: Ctrl-C became "a request in flight carries the buffer".

vlmcd is stopped while the signal comes, so that the request is certainly under way.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

import archipelago
from archipelago.volume_handle import Volume
from tests.helpers.instance import Instance, running_instance
from xseg import live_handles

SIZE = 8 << 20
CALLS: dict[str, Callable[[Volume], object]] = {
    "pread, small": lambda v: v.pread(4096, 0),
    "pread, large": lambda v: v.pread(SIZE, 0),
    "pwrite, small": lambda v: v.pwrite(b"x" * 4096, 0),
    "pwrite, large": lambda v: v.pwrite(b"x" * SIZE, 0),
    "flush": lambda v: v.flush(),
    "zero": lambda v: v.zero(0, SIZE),
    "read_buffer": lambda v: read_buffer(v),
}


def read_buffer(volume: Volume) -> None:
    with volume.buffer(4096) as buffer:
        volume.read_buffer(buffer, 0)


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance() as started:
        started.vlmc("create", "v", "--size", f"{SIZE}B")
        yield started


def interrupt_when_waiting(process: int) -> None:
    """Press Ctrl-C once the main thread sleeps, then let the process go on."""
    main = f"/proc/self/task/{os.getpid()}/syscall"
    while True:
        with open(main) as file:
            call = file.read().split()
        if call[0] in ("202", "98"):  # futex, on x86-64 and arm64
            break
    os.kill(os.getpid(), signal.SIGINT)
    # The next slice of its sleep ends with the interrupt; the call needs no answer.
    interrupted.wait()
    os.kill(process, signal.SIGCONT)


interrupted = threading.Event()


@pytest.mark.parametrize("call", CALLS)
def test_an_interrupted_transfer_leaves_the_volume_usable(
    instance: Instance, call: str
) -> None:
    vlmcd = next(p["pid"] for p in instance.status()["peers"] if p["name"] == "vlmcd")
    with archipelago.connect(instance.home) as client, client.open("v") as volume:
        volume.pwrite(b"before", SIZE - 6)
        before = live_handles()
        interrupted.clear()
        os.kill(vlmcd, signal.SIGSTOP)
        helper = threading.Thread(target=interrupt_when_waiting, args=(vlmcd,))
        try:
            helper.start()
            with pytest.raises(KeyboardInterrupt):
                CALLS[call](volume)
        finally:
            interrupted.set()
            helper.join()
            os.kill(vlmcd, signal.SIGCONT)
        for _ in range(20):
            volume.pwrite(b"after", 4096)
            assert volume.pread(5, 4096) == b"after"
        volume.flush()
        # What was given up has freed itself.
        assert live_handles() == before
