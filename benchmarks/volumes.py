# SPDX-License-Identifier: Apache-2.0
"""Volumes as a whole: time of clone and snapshot, import rate, write amplification."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import archipelago
from benchmarks.report import Row
from benchmarks.rivals import ours

GIB = 1 << 30
REPEATS = 20


def _timed(call: Callable[[int], object], repeats: int = REPEATS) -> float:
    """Median time of a call [ms]; it gets the number of the repeat."""
    taken = []
    for i in range(repeats):
        begin = time.perf_counter()
        call(i)
        taken.append((time.perf_counter() - begin) * 1e3)
    return median(taken)


def _chain(client: archipelago.Client, size: int, depth: int) -> tuple[float, float]:
    """Clone and snapshot latency [ms] of a volume with `depth` snapshots."""
    base = f"v{size >> 30}-{depth}"
    client.create(base, size=size)
    with client.open(base) as volume:
        for i in range(depth):
            volume.pwrite(b"x" * 4096, (i * 7919 * 4096) % (size - 4096) // 4096 * 4096)
            client.snapshot(base, f"{base}-s{i}")
        snapshot = _timed(lambda i: client.snapshot(base, f"{base}-t{i}"))
    clone = _timed(lambda i: client.create(f"{base}-c{i}", snap=f"{base}-s{depth - 1}"))
    return clone, snapshot


def latency(work: Path) -> tuple[list[Row], list[str]]:
    """Clone and snapshot: does size or depth matter?"""
    with ours.instance(work / "home-latency") as client:
        small = _chain(client, GIB, 1)
        large = _chain(client, 16 << 40, 1)
        deep = _chain(client, 16 << 40, 100)
    rows = []
    for i, what in enumerate(("clone", "snapshot")):
        rows.append(
            Row(
                f"{what} of 16 TiB, against 1 GiB",
                f"{large[i]:.2f} ms",
                f"1 GiB {small[i]:.2f} ms",
                small[i] / large[i],
                1 / 1.5,
            )
        )
        rows.append(
            Row(
                f"{what} of 16 TiB at depth 100, against depth 1",
                f"{deep[i]:.2f} ms",
                f"depth 1 {large[i]:.2f} ms",
                large[i] / deep[i],
                1 / 1.5,
            )
        )
        rows.append(
            Row(
                f"{what} of 16 TiB, against 5 ms",
                f"{large[i]:.2f} ms",
                "5 ms",
                5 / large[i],
                1.0,
            )
        )
    return rows, [
        "Client.create(snap=...), Client.snapshot() of an open volume; median of 20"
    ]


def _seconds(argv: list[str | Path]) -> float:
    """Wall time of a command [s]."""
    begin = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - begin


def _openssl_rate() -> float:
    """SHA-256 by openssl, one core [bytes/s]."""
    out = subprocess.run(
        ["openssl", "speed", "-seconds", "2", "-bytes", "4194304", "sha256"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"sha256\s+([\d.]+)k", out)
    assert found, out
    return float(found[1]) * 1000


def ingest(work: Path, size: int = 2 * GIB) -> tuple[list[Row], list[str]]:
    """Import of incompressible data, per core, against openssl's SHA-256."""
    source = work / "ingest.raw"
    with source.open("wb") as file:
        subprocess.run(
            ["head", "-c", str(size), "/dev/urandom"], stdout=file, check=True
        )
    cores = os.cpu_count() or 1
    os.sync()  # what made the source must not compete with us for the disk
    home = work / "home-ingest"
    taken = []
    with ours.instance(home):
        for name in ("first", "again"):  # the second finds every block stored
            argv: list[str | Path] = [
                ours.BIN / "vlmc",
                "--home",
                home,
                "import",
                source,
                name,
            ]
            taken.append(_seconds(argv))
    copy = work / "copy.raw"
    copied = _seconds(["dd", f"if={source}", f"of={copy}", "bs=4M", "conv=fsync"])
    copy.unlink()
    source.unlink()
    hashing = _openssl_rate()
    rows = []
    for what, seconds in zip(("stored", "deduplicated"), taken, strict=True):
        rate = size / seconds / cores
        rows.append(
            Row(
                f"import, {what}, per core",
                f"{rate / 1e6:,.0f} MB/s",
                f"openssl sha256 {hashing / 1e6:,.0f} MB/s",
                rate / hashing,
                0.9,
            )
        )
    rows.append(
        Row(
            "import, stored and durable",
            f"{size / taken[0] / 1e6:,.0f} MB/s",
            f"dd conv=fsync {size / copied / 1e6:,.0f} MB/s",
            copied / taken[0],
            None,
        )
    )
    return rows, [
        f"vlmc import of {size >> 30} GiB; openssl speed -bytes 4194304 sha256"
    ]


def _written(home: Path) -> int:
    """Bytes that the processes of an instance caused to be written (proc(5), io)."""
    out = subprocess.run(
        [ours.BIN / "archipelago", "--home", home, "status", "--json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    total = 0
    for pid in {peer["pid"] for peer in json.loads(out)["peers"]}:
        text = Path(f"/proc/{pid}/io").read_text()
        found = re.search(r"^write_bytes: (\d+)", text, re.M)
        assert found, text
        total += int(found[1])
    return total


def amplification(work: Path) -> tuple[list[Row], list[str]]:
    """Bytes written to disk per byte asked: 4 KiB random writes to a fresh clone."""
    home = work / "home-amplification"
    nr = 4096
    with ours.instance(home) as client:
        client.create("origin", size=GIB)
        with client.open("origin") as volume:
            block = os.urandom(1 << 20)
            for i in range(1024):
                volume.pwrite(block, i << 20)
        client.snapshot("origin", "golden")
        client.create("clone", snap="golden")
        with client.open("clone") as volume:
            before = _written(home)
            for i in range(nr):
                volume.pwrite(block[:4096], (i * 40503 % (GIB // 4096)) * 4096)
            volume.flush()
            after = _written(home)
    ratio = (after - before) / (nr * 4096)
    row = Row(
        "bytes written / bytes asked, fresh clone",
        f"{ratio:.2f}",
        "at most 2",
        2 / ratio,
        1.0,
    )
    return [row], [
        f"{nr} random 4 KiB writes and one flush; write_bytes of /proc/PID/io"
    ]
