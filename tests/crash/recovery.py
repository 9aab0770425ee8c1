# SPDX-License-Identifier: Apache-2.0
"""A second power cut, while an instance recovers from the first.

    python -m tests.crash.recovery STORE HOME SEED

runs under the recorder on a state that a power cut left: another node comes, takes over
what was open, puts right what was torn, and writes.  Its log is cut again anywhere.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from tests.crash.checker import Checker
from tests.crash.disk import Dice, Disk
from tests.crash.journal import Kind, Recorder, environment, read_log
from tests.crash.marker import Marker
from tests.crash.model import Expected, Model, payload
from tests.crash.reader import BrokenStore, Found, Reader, State
from tests.helpers.inprocess import running

ROOT = Path(__file__).resolve().parents[2]
#: States for each cut.
TRIES = 2


def put_state(store: Path, state: State) -> dict[str, int]:
    """Put a state on a real filesystem.

    Returns:
        The inode of each file, by path.
    """
    store.mkdir(parents=True)
    inodes: dict[str, int] = {}
    for path, data in state.items():
        target = store / path
        if data is None:
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(data)
            inodes[path] = target.stat().st_ino
    return inodes


class SecondCut(Exception):
    """A state after the second cut that must not be."""


def cut_again(
    state: State, found: dict[str, Found], where: Path, seed: int, recorder: Path
) -> tuple[Disk, Model, Path]:
    """Let an instance recover from a cut, recorded.

    Args:
        state: what the cut left.
        found: the volumes in it.
        where: an empty directory.
        seed: of what the instance writes.
        recorder: the library.

    Returns:
        The disk and the model before it came, and the log of what it did.
    """
    store, log = where / "store", where / "log"
    inodes = put_state(store, state)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.crash.recovery"),
            *(store, where / "home", str(seed)),
        ],
        cwd=ROOT,
        env=environment(recorder, store, log),
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise SecondCut(f"no instance can open it:\n{done.stderr}")
    model = Model(seed)
    for number, (name, volume) in enumerate(sorted(found.items())):
        size = len(volume.data)
        content = bytearray(volume.data.ljust(-(-size // 512) * 512, b"\0"))
        model.volumes[number] = Expected(
            [name], [size], content, volume.read_only, current=bytearray(content)
        )
    return Disk.holding(state, inodes), model, log


def check_cuts(
    disk: Disk, model: Model, log: Path, seed: int, states: int, checker: Checker
) -> int:
    """Cut a recovery at random positions; returns how many states were checked."""
    rng = random.Random(seed)
    events = read_log(log)
    cuts = set(rng.choices(range(1, len(events) + 1), k=-(-states // TRIES)))
    reader, checked = Reader(), 0
    for position, event in enumerate(events, 1):
        disk.advance(event)
        if event.kind is Kind.MARK:
            model.take(event.path, event.data)
        for attempt in range(TRIES if position in cuts else 0):
            dice = Dice.throw(
                hash((seed, position, attempt)), disk.first_pending(), position
            )
            try:
                checker.check(model, reader.read(disk.state(dice)))
            except BrokenStore as error:
                raise SecondCut(
                    f"{error}\nafter a second cut at event {position} of "
                    f"{len(events)}, {dice}"
                ) from error
            checked += 1
    return checked


def main(store: Path, home: Path, seed: int) -> None:
    """Open every volume, read it, write, flush, close."""
    marker = Marker(Recorder())
    rng = random.Random(seed)
    home.mkdir()
    with running(home, store=store, host="second") as instance:
        with instance.connect() as client:
            for number, info in enumerate(client.list()):
                with client.open(info.name) as volume:
                    data = volume.pread(volume.size, 0)
                    marker.note(data, found=number, strict=True)
                    if volume.read_only:
                        continue
                    for _ in range(3):
                        length = rng.randint(1, min(len(data), 16384))
                        at = rng.randint(0, len(data) - length)
                        what = {"offset": at, "length": length}
                        with marker.op("write", volume=number, **what) as op:
                            volume.pwrite(payload(seed, op, length), at)
                    with marker.op("flush", volume=number):
                        volume.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
