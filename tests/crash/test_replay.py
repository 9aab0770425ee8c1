# SPDX-License-Identifier: Apache-2.0
"""Power cuts: every flushed byte is there, every unit is old or new, no map is torn.

A workload is recorded, then states after power cuts at random instants are built and
checked; ``CRASH_STATES`` says how many in all, ``CRASH_SEED`` repeats a run of cuts.
``make soak`` does many more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SEED
from tests.crash.disk import Disk
from tests.crash.journal import Event, Kind, build_recorder, read_log
from tests.crash.replay import PowerCutFailure, replay

ROOT = Path(__file__).resolve().parents[2]
STATES = int(os.environ.get("CRASH_STATES", "10000"))
#: Each workload is new: uuids and the order of threads are different every time.
STATES_PER_WORKLOAD = 2500
STEPS = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which(os.environ.get("CC", "cc").split()[0]) is None,
        reason="needs a C compiler for the recorder",
    ),
    pytest.mark.skipif(
        "libasan" in os.environ.get("LD_PRELOAD", ""),
        reason="the recorder and the sanitizer want the same place",
    ),
]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory in memory if there is one: syncs are recorded, not needed."""
    shm = Path("/dev/shm")
    base = shm if os.access(shm, os.W_OK) else None
    where = Path(tempfile.mkdtemp(prefix="archipelago-crash-", dir=base))
    try:
        yield where
    finally:
        shutil.rmtree(where)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_recorder(tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="module")
def one_log(recorder: Path) -> Iterator[Path]:
    """The log of one workload, of the seed in the report's header."""
    with scratch() as where:
        yield record(recorder, where, SEED)


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch() as where:
        yield where


def record(recorder: Path, place: Path, seed: int) -> Path:
    """Run a workload; returns its log."""
    store, log = place / "store", place / "log"
    store.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "CRASH_ROOT": str(store),
        "CRASH_LOG": str(log),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.workload", store, str(seed), str(STEPS)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, f"workload {seed} failed:\n{done.stderr}"
    return log


def keep(log: Path, seed: int) -> Path:
    """Keep the log of a failure: only with it can the failure be repeated."""
    into = ROOT / "build" / "crash"
    into.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(log, into / f"workload-{seed}.log"))


@pytest.mark.parametrize("number", range(-(-STATES // STATES_PER_WORKLOAD)))
def test_any_power_cut_leaves_what_was_promised(
    recorder: Path, place: Path, number: int
) -> None:
    seed = int(os.environ.get("CRASH_SEED", str(SEED))) + number
    log = record(recorder, place, seed)
    states = min(STATES_PER_WORKLOAD, STATES)
    try:
        report = replay(log, seed, seed, states, place / "live")
    except PowerCutFailure as error:
        # The line that repeats it names the log: let it be the copy that stays.
        told = str(error).replace(str(log), str(keep(log, seed)))
        raise PowerCutFailure(told) from error
    assert report.states >= states
    assert report.opened >= states // 50
    print(f"workload and cuts of seed {seed}: {report}")


@pytest.mark.parametrize(
    "path",
    [
        "data/extents/",
        "data/extents",
        "data/content/",
        "maps/tmp/",
        "maps/headers/",
        "maps/journals/",
        "maps/journals",
        "maps/layers/",
        "maps/layers",
        "maps/leases",
    ],
)
def test_a_store_that_did_not_sync_would_be_found_out(
    one_log: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check has teeth: without the syncs of some files it fails."""
    advance = Disk.advance

    def forgetful(disk: Disk, event: Event) -> None:
        is_sync = event.kind in (Kind.SYNC, Kind.SYNCDIR)
        if is_sync and event.path.startswith(path):
            disk.position += 1
        else:
            advance(disk, event)

    monkeypatch.setattr(Disk, "advance", forgetful)
    with pytest.raises(PowerCutFailure):
        replay(one_log, SEED, SEED, 4000)


def test_a_workload_meets_everything_that_can_be_cut(one_log: Path) -> None:
    events = read_log(one_log)
    assert {event.kind for event in events} >= {
        Kind.CREATE,
        Kind.WRITE,
        Kind.PUNCH,
        Kind.SYNC,
        Kind.SYNCDIR,
        Kind.RENAME,
        Kind.UNLINK,
        Kind.MKDIR,
    }
    marks = "".join(event.path for event in events if event.kind is Kind.MARK)
    for op in ("write", "zero", "flush", "create", "rename", "resize", "remove"):
        assert f'"op": "{op}"' in marks
    layers = [e for e in events if e.path.startswith("maps/layers/")]
    assert layers, "nothing was merged"
