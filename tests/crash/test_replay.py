# SPDX-License-Identifier: Apache-2.0
"""Power cuts: every flushed byte is there, every unit is old or new, no map is torn.

Workloads are recorded, then states after power cuts at random instants are built and
checked; ``CRASH_STATES`` says how many in all, ``CRASH_SEED`` repeats a run of cuts.
``make soak`` does many more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SEED
from tests.crash.coverage import count, unexplained
from tests.crash.disk import Disk
from tests.crash.journal import (
    Event,
    Kind,
    build_recorder,
    environment,
    read_log,
)
from tests.crash.plans import DEEP, PLANS, Plan
from tests.crash.replay import PowerCutFailure, Replay
from tests.helpers.scratch import scratch

ROOT = Path(__file__).resolve().parents[2]
STATES = int(os.environ.get("CRASH_STATES", "10000"))
#: Each workload is new: uuids and the order of threads are different every time.
STATES_PER_WORKLOAD = int(os.environ.get("CRASH_PER_WORKLOAD", "1250"))
STEPS = 400
#: Recoveries of each workload that are cut again.
RECOVERIES = 2

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


@dataclass(frozen=True)
class Recorded:
    """A workload that was run."""

    plan: Plan
    seed: int
    log: Path
    store: Path


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_recorder(tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch("crash") as where:
        yield where


def record(recorder: Path, place: Path, plan: int, seed: int) -> Recorded:
    """Run a workload."""
    store, log = place / "store", place / "log"
    store.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.crash.workload", store, log),
            *map(str, (plan, seed, STEPS)),
        ],
        cwd=ROOT,
        env=environment(recorder, store, log),
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        kept = keep(log, seed)
        raise AssertionError(
            f"workload {seed} of plan {plan} failed, log {kept}:\n{done.stderr}"
        )
    return Recorded(PLANS[plan], seed, log, store)


def keep(log: Path, seed: int) -> Path:
    """Keep the log of a failure: only with it can the failure be repeated."""
    into = ROOT / "build" / "crash" / f"workload-{seed}"
    shutil.rmtree(into, ignore_errors=True)
    return Path(shutil.copytree(log, into))


def check_log(recorded: Recorded) -> Counter[str]:
    """The log is whole, and has in it what it is there for.

    Whole: everything applied in order makes the files that there are, byte for byte.
    """
    events = read_log(recorded.log)
    disk = Disk(("data", "maps"))
    for event in events:
        disk.advance(event)
    files: dict[str, bytes | None] = {}
    for path in recorded.store.rglob("*"):
        name = str(path.relative_to(recorded.store))
        files[name] = None if path.is_dir() else path.read_bytes()
    assert not unexplained(disk.running(), files)
    counts = count(events)
    missing = [name for name in expected(recorded.plan) if not counts[name]]
    assert not missing, f"the workload had no {missing}: {counts}"
    return counts


def expected(plan: Plan) -> list[str]:
    """What every workload of a plan must contain (`coverage.count`)."""
    wanted = ["write", "zero", "flush", "create", "resize", "remove", "rename"]
    wanted += ["checkpoint", "epoch", "reclaimed", "PUNCH", "SYNCDIR"]
    wanted.append("deep" if plan.limits is DEEP else "merge")
    if plan.kills:
        wanted.append("killed")
    if plan.along:
        wanted += ["moved", "broken", "sealed"]
    elif "lose" in plan.ends:
        wanted += ["held", "sealed", "copied"]
    return wanted


@pytest.mark.parametrize("number", range(-(-STATES // STATES_PER_WORKLOAD)))
def test_any_power_cut_leaves_what_was_promised(
    recorder: Path, place: Path, number: int
) -> None:
    seed = int(os.environ.get("CRASH_SEED", str(SEED))) + number
    recorded = record(recorder, place, number % len(PLANS), seed)
    states = min(STATES_PER_WORKLOAD, STATES)
    try:
        counts = check_log(recorded)
        replay = Replay(recorded.log, seed, seed, place / "live", recorder, RECOVERIES)
        report = replay.run(states)
    except PowerCutFailure as error:
        # The line that repeats it names the log: let it be the copy that stays.
        told = str(error).replace(str(recorded.log), str(keep(recorded.log, seed)))
        raise PowerCutFailure(told) from error
    except AssertionError:
        keep(recorded.log, seed)
        raise
    assert report.states >= states
    print(f"workload and cuts of seed {seed}, {recorded.plan}: {report}, {counts}")


@pytest.fixture(scope="module")
def logs(recorder: Path) -> Iterator[dict[str, Recorded]]:
    """One workload for each engine, of the seed in the report's header."""
    with scratch("crash") as where:
        found = {}
        for name, plan in (("io_uring", 2), ("threads", 1)):
            (where / name).mkdir()
            found[name] = record(recorder, where / name, plan, SEED)
        yield found


@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_a_store_that_did_sync_is_not_found_out(
    logs: dict[str, Recorded], engine: str
) -> None:
    """The other half of the tests below: it is the missing syncs that they find."""
    recorded = logs[engine]
    Replay(recorded.log, recorded.seed, SEED).run(4000)


#: Whose syncs are left out: files and directories by the beginning of their paths.
FORGOTTEN = [
    ("threads", "data/extents/"),
    ("io_uring", "data/extents/"),
    ("threads", "data/extents"),
    ("threads", "data/content/"),
    ("io_uring", "data/tmp/"),
    ("threads", "maps/tmp/"),
    ("threads", "maps/headers/"),
    ("threads", "maps/journals/"),
    ("io_uring", "maps/journals/"),
    ("threads", "maps/journals"),
    ("io_uring", "maps/layers/"),
    ("threads", "maps/layers"),
    ("io_uring", "maps/leases"),
]


@pytest.mark.parametrize("engine, path", FORGOTTEN)
def test_a_store_that_did_not_sync_would_be_found_out(
    logs: dict[str, Recorded], engine: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check has teeth: without the syncs of some files it fails."""
    advance = Disk.advance

    def forgetful(disk: Disk, event: Event) -> None:
        is_sync = event.kind in (Kind.SYNC, Kind.SYNCDIR)
        if event.kind is Kind.WRITE_DSYNC and event.path.startswith(path):
            event.kind = Kind.WRITE
        if is_sync and event.path.startswith(path):
            disk.position += 1
        else:
            advance(disk, event)

    monkeypatch.setattr(Disk, "advance", forgetful)
    recorded = logs[engine]
    with pytest.raises(PowerCutFailure):
        Replay(recorded.log, recorded.seed, SEED).run(4000)
