# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 10: what a script leaves open is closed, and said where asked for.

Threads that write side by side miss no warning of a flush.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import archipelago
from archipelago import Client
from tests.helpers.inprocess import MIB, running
from tests.helpers.instance import Instance, running_instance


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance() as started:
        started.vlmc("create", "v", "--size", "8M")
        yield started


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with running(tmp_path) as instance, instance.connect() as connected:
        yield connected


SCRIPTS = {
    "a client": "c = archipelago.connect()",
    "a client that was used": "c = archipelago.connect(); c.list()",
    "a volume": "c = archipelago.connect(); v = c.open('v'); v.pwrite(b'left', 0)",
    "a thread's port": (
        "c = archipelago.connect(); v = c.open('v')\n"
        "t = threading.Thread(target=v.pread, args=(1, 0)); t.start(); t.join()"
    ),
    "a buffer and a queue": (
        "v = archipelago.connect().open('v'); b = v.buffer(4096); q = v.queue()\n"
        "q.read(b, 0)"
    ),
    "a cycle": "c = archipelago.connect(); v = c.open('v'); v.itself = v; c.volume = v",
    "an error": "v = archipelago.connect().open('v'); raise SystemExit(0)",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_leaves_things_open_ends_in_silence(
    instance: Instance, script: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import archipelago, threading\n{SCRIPTS[script]}"],
        env=instance.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_warning_is_given_at_the_end_of_a_script_that_asks(
    instance: Instance,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c",
         "import archipelago; c = archipelago.connect(); c.list()"],
        env=instance.env,
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert "was not closed" in done.stderr
    assert "Error" not in done.stderr


def test_a_volume_that_is_dropped_is_closed(client: Client) -> None:
    client.create("v", MIB)
    volume = client.open("v")
    volume.pwrite(b"kept", 0)
    with pytest.warns(ResourceWarning, match="'v' open.* was not closed"):
        del volume
    # No handle of it is left: it can be removed at once, and what it had is there.
    client.snapshot("v", "s")
    client.remove("v")
    with client.open("s") as snapshot:
        assert snapshot.pread(4, 0) == b"kept"


def test_a_volume_in_a_cycle_is_closed_by_the_collector(client: Client) -> None:
    client.create("v", MIB)
    volume = client.open("v")
    volume.itself = volume  # type: ignore[attr-defined]
    del volume
    with pytest.warns(ResourceWarning, match="was not closed"):
        gc.collect()
    client.remove("v")


def test_a_closed_volume_warns_of_nothing(
    client: Client, recwarn: pytest.WarningsRecorder
) -> None:
    client.create("v", MIB)
    volume = client.open("v")
    volume.close()
    del volume
    with pytest.raises(archipelago.VolumeNotFound):
        client.open("none")
    gc.collect()
    assert [w for w in recwarn if w.category is ResourceWarning] == []


def test_threads_that_write_miss_no_change(client: Client) -> None:
    client.create("v", MIB)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with client.open("v") as volume:

            def note() -> None:
                for _ in range(5000):
                    volume.note_change()

            threads = [threading.Thread(target=note) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert volume._changes == 8 * 5000
    finally:
        sys.setswitchinterval(interval)
