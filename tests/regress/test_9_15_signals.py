# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 15: an import that read an idle pipe ignored TERM and INT."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.instance import BIN, Instance, running_instance

#: Numbers of read and of poll on x86-64 and arm64, in /proc/PID/task/TID/syscall.
_READ, _POLLS = {"0", "63"}, {"7", "73"}


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance(block_size="64K") as started:
        yield started


def waits_for(pid: int, pipe: int) -> bool:
    """True if a process has emptied its standard input and sleeps for more of it."""
    left = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, left)
    if any(left):
        return False
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            call = (task / "syscall").read_text().split()
        except OSError:
            return False
        if call[0] in _POLLS or (call[0] in _READ and call[1] == "0x0"):
            return True
    return False


@pytest.mark.parametrize("begun", [b"", b"x" * 4096, b"x" * 60_000, b"\x1f\x8b\x08\0"])
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_import_that_waits_for_its_image_ends_at_once(
    instance: Instance, begun: bytes, number: str, code: int
) -> None:
    theirs, ours = os.pipe()
    with subprocess.Popen(
        [str(BIN / "vlmc"), "import", "-", "v"],
        stdin=theirs,
        stderr=subprocess.PIPE,
        env=instance.env,
    ) as process:
        assert process.stderr is not None
        os.write(ours, begun)
        while not waits_for(process.pid, theirs):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(getattr(signal, number))
        # The pipe stays open: only the signal can end it.
        said = process.stderr.read().strip()
        assert (process.wait(), said) == (code, b"")
    os.close(ours)
    os.close(theirs)
    assert json.loads(instance.vlmc("list", "--json")) == {"volumes": []}
