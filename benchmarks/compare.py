# SPDX-License-Identifier: Apache-2.0
"""This build beside another one of ours: did a figure fall?

Usage: python -m benchmarks.compare TREE [--seconds S] [--rounds N] [--work DIR]

TREE is a checkout in which ``scripts/setup.sh demo`` was run.  Question: what did the
changes since then cost?  Both builds run at once, each with an instance of its own, and
take turns within each round, the first turn alternating too; the median counts.  What
is measured is what ``owned``, ``fresh`` and ``flush`` measure beside rivals.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks import fio
from benchmarks.nbd_io import SIZE, WORK
from benchmarks.report import Row, show
from benchmarks.rivals import ours

#: How many volumes are flushed at once, and how long each is [bytes].
MANY = 8
SIZE_OF_MANY = 64 << 20


class Build:
    """An instance of a build, driven by that build's own commands."""

    def __init__(self, bin: Path, home: Path) -> None:
        self._bin = bin
        self._env = dict(os.environ, ARCHIPELAGO_HOME=str(home))

    def type(self, command: str, *words: str | Path) -> str:
        """What a command prints."""
        argv = [self._bin / command, *words]
        return subprocess.run(
            argv, env=self._env, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    def create(self, *words: str) -> str:
        """Create a volume; the URI that serves it."""
        self.type("vlmc", "create", *words)
        return self.type("vlmc", "url", words[0])


@contextlib.contextmanager
def running(bin: Path, home: Path) -> Iterator[Build]:
    """An instance until the block ends."""
    build = Build(bin, home)
    build.type("archipelago", "start")
    try:
        yield build
    finally:
        build.type("archipelago", "stop", "--force")


Measure = Callable[[Build, int], float]


def measures(seconds: float) -> dict[str, Measure]:
    """Operations per second, by what is done; called with a round's number."""

    def owned(rw: str, bs: str, depth: int) -> Measure:
        return lambda build, _: (
            fio.run(
                fio.argv(
                    build.type("vlmc", "url", "bench"), rw, bs, depth, seconds, SIZE
                )
            ).iops
        )

    def fresh(rw: str) -> Measure:
        def measure(build: Build, number: int) -> float:
            uri = build.create(f"{rw}-{number}", "--snap", "golden")
            return fio.run(fio.argv(uri, rw, "4k", 32, seconds, SIZE)).iops

        return measure

    def flushed(build: Build, uris: list[str]) -> float:
        return fio.run(fio.argv_flushed(uris, seconds, SIZE_OF_MANY)).iops

    def flushed_owned(nr: int) -> Measure:
        return lambda build, _: flushed(
            build, [build.type("vlmc", "url", f"many-{i}") for i in range(nr)]
        )

    def flushed_fresh(nr: int) -> Measure:
        def measure(build: Build, number: int) -> float:
            names = [f"flush-{nr}-{number}-{i}" for i in range(nr)]
            return flushed(
                build, [build.create(name, "--snap", "small") for name in names]
            )

        return measure

    return {
        **{f"{name}, owned": owned(rw, bs, depth) for name, rw, bs, depth in WORK},
        "4K random read of a fresh clone, QD32": fresh("randread"),
        "4K random write to a fresh clone, QD32": fresh("randwrite"),
        "4K write + flush, owned, QD1": flushed_owned(1),
        f"4K write + flush, owned, {MANY} volumes": flushed_owned(MANY),
        "4K write + flush, fresh clone, QD1": flushed_fresh(1),
        f"4K write + flush, fresh clones, {MANY} volumes": flushed_fresh(MANY),
    }


def prepare(build: Build, image: Path) -> None:
    """Owned volumes with every byte written, and what clones are made of."""
    fio.fill(build.create("bench", "--size", str(SIZE >> 20)), SIZE)
    for i in range(MANY):
        size = str(SIZE_OF_MANY >> 20)
        fio.fill(build.create(f"many-{i}", "--size", size), SIZE_OF_MANY)
    build.type("vlmc", "import", image, "golden")
    build.type("vlmc", "snapshot", "many-0", "small")


def main() -> int:
    """Compare two builds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tree", type=Path, help="a checkout of the other build")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    other_bin = options.tree.resolve() / ".venv" / "bin"
    if not (other_bin / "archipelago").exists():
        parser.error(
            f'nothing built in {options.tree}: run "scripts/setup.sh demo" there'
        )
    work = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    image = work / "golden.raw"
    rows = []
    with (
        running(ours.BIN, work / "this") as this,
        running(other_bin, work / "other") as other,
        Console(stderr=True).status("preparing ...") as status,
    ):
        with image.open("wb") as file:
            argv = ["head", "-c", str(SIZE), "/dev/urandom"]
            subprocess.run(argv, stdout=file, check=True)
        for build in (this, other):
            prepare(build, image)
        for work_name, measure in measures(options.seconds).items():
            status.update(f"{work_name} ...")
            rates: dict[Build, list[float]] = {this: [], other: []}
            for number in range(options.rounds):
                turns = (this, other) if number % 2 == 0 else (other, this)
                for build in turns:
                    rates[build].append(measure(build, number))
            mine, theirs = median(rates[this]), median(rates[other])
            label = f"{mine:,.0f} /s"
            rows.append(Row(work_name, label, f"{theirs:,.0f} /s", mine / theirs, None))
    shutil.rmtree(work, ignore_errors=True)
    show(f"this build beside {options.tree}", rows, [])
    return 0


if __name__ == "__main__":
    sys.exit(main())
