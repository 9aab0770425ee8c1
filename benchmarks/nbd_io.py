# SPDX-License-Identifier: Apache-2.0
"""I/O over NBD on a unix socket, against qemu-nbd and nbdkit.

Question: what does a client of ours get, beside the same client on the usual servers?
Servers take turns within each round, so that a drift of the machine's speed hits all;
the median of the rounds counts.  All use the page cache, as they do by default.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from statistics import median

from benchmarks import fio
from benchmarks.report import Row
from benchmarks.rivals import nbdkit, ours, qemu_nbd
from benchmarks.target import Target

SIZE = 1 << 30

#: name, fio pattern, block, depth
WORK = (
    ("4K random read QD32", "randread", "4k", 32),
    ("4K random write QD32", "randwrite", "4k", 32),
    ("4K random read QD1", "randread", "4k", 1),
    ("4K random write QD1", "randwrite", "4k", 1),
    ("1 MiB sequential read", "read", "1M", 8),
    ("1 MiB sequential write", "write", "1M", 8),
)


def rounds(
    targets: list[Target], rw: str, bs: str, depth: int, seconds: float, nr: int
) -> dict[str, fio.Sample]:
    """Median sample per target, of `nr` interleaved rounds."""
    samples: dict[str, list[fio.Sample]] = {t.name: [] for t in targets}
    for _ in range(nr):
        for target in targets:
            samples[target.name].append(
                fio.run(fio.argv(target.uri, rw, bs, depth, seconds, SIZE))
            )
    return {
        name: fio.Sample(
            *(
                median(getattr(s, f) for s in taken)
                for f in ("iops", "mib", "mean_us", "p99_us")
            )
        )
        for name, taken in samples.items()
    }


def _throughput(
    work: str, mine: fio.Sample, name: str, theirs: fio.Sample, goal: float
) -> Row:
    unit = "mib" if "MiB" in work else "iops"
    label = "MiB/s" if unit == "mib" else "IOPS"
    a, b = getattr(mine, unit), getattr(theirs, unit)
    return Row(work, f"{a:,.0f} {label}", f"{name} {b:,.0f}", a / b, goal)


def _latency(work: str, mine: fio.Sample, rivals: dict[str, fio.Sample]) -> Row:
    name, best = min(rivals.items(), key=lambda item: item[1].mean_us)
    return Row(
        f"{work}, mean latency",
        f"{mine.mean_us:.1f} us (p99 {mine.p99_us:.0f})",
        f"{name} {best.mean_us:.1f} us (p99 {best.p99_us:.0f})",
        best.mean_us / mine.mean_us,
        1.0,
    )


def owned(work: Path, seconds: float, nr: int) -> tuple[list[Row], list[str]]:
    """Everything written before: in-place I/O."""
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(ours.instance(work / "home"))
        client.create("bench", size=SIZE)
        mine = ours.export(client, "bench")
        (work / "r").mkdir()
        (work / "q").mkdir()
        raw = stack.enter_context(qemu_nbd.image(work / "r", "raw", SIZE))
        qcow = stack.enter_context(qemu_nbd.image(work / "q", "qcow2", SIZE))
        kit = stack.enter_context(nbdkit.raw(work, SIZE))
        targets = [mine, raw, qcow, kit]
        for target in targets:
            fio.fill(target.uri, SIZE)
        for name, rw, bs, depth in WORK:
            got = rounds(targets, rw, bs, depth, seconds, nr)
            us = got[mine.name]
            if depth == 32:
                rows.append(
                    _throughput(f"{name}, owned", us, qcow.name, got[qcow.name], 2.0)
                )
                rows.append(
                    _throughput(f"{name}, owned", us, kit.name, got[kit.name], 1.2)
                )
            elif depth == 1:
                files = {t.name: got[t.name] for t in (raw, kit)}
                rows.append(_latency(name, us, files))
            else:
                rows.append(_throughput(name, us, raw.name, got[raw.name], 1.0))
        notes = [f"{t.name}: {t.command}" for t in targets]
        notes.append(" ".join(fio.argv("URI", "RW", "BS", 32, seconds, SIZE)))
    return rows, notes


def fresh(work: Path, seconds: float, nr: int) -> tuple[list[Row], list[str]]:
    """A new clone (or overlay) for every round: first writes, and reads through it."""
    golden_raw, golden = work / "golden.raw", work / "golden.qcow2"
    notes: list[str] = []
    samples: dict[tuple[str, str], list[fio.Sample]] = {}
    with ours.instance(work / "home-fresh") as client:
        with golden_raw.open("wb") as file:
            subprocess.run(
                ["head", "-c", str(SIZE), "/dev/urandom"], stdout=file, check=True
            )
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", golden_raw, golden],
            check=True,
        )
        archive = ours.BIN / "vlmc"
        subprocess.run(
            [archive, "--home", work / "home-fresh", "import", golden_raw, "golden"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        golden_raw.unlink()
        for i in range(nr):
            for rw in ("randread", "randwrite"):
                client.create(f"{rw}-{i}", snap="golden")
                mine = ours.export(client, f"{rw}-{i}")
                command = fio.argv(mine.uri, rw, "4k", 32, seconds, SIZE)
                samples.setdefault((rw, "ours"), []).append(fio.run(command))
                with qemu_nbd.image(work, "qcow2", SIZE, backing=golden) as overlay:
                    command = fio.argv(overlay.uri, rw, "4k", 32, seconds, SIZE)
                    samples.setdefault((rw, "qcow2"), []).append(fio.run(command))
                    notes = [f"{t.name}: {t.command}" for t in (mine, overlay)]
    golden.unlink()
    rows = []
    for rw, goal in (("randread", 2.0), ("randwrite", 4.0)):
        a = median(s.iops for s in samples[rw, "ours"])
        b = median(s.iops for s in samples[rw, "qcow2"])
        what = "4K random read of" if rw == "randread" else "4K random write to"
        rows.append(
            Row(
                f"{what} a fresh clone, QD32",
                f"{a:,.0f} IOPS",
                f"qcow2 overlay {b:,.0f}",
                a / b,
                goal,
            )
        )
    return rows, notes
