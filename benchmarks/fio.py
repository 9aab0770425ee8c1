# SPDX-License-Identifier: Apache-2.0
"""Running fio and reading what it measured."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One run of fio.

    Attributes:
        iops: operations per second.
        mib: MiB per second.
        mean_us: mean completion latency [us].
        p99_us: 99th percentile [us].
    """

    iops: float
    mib: float
    mean_us: float
    p99_us: float


def argv(
    uri: str, rw: str, bs: str, depth: int, seconds: float, size: int
) -> list[str]:
    """The command line of one run over NBD."""
    return [
        "fio",
        "--name=b",
        "--ioengine=nbd",
        f"--uri={uri}",
        f"--rw={rw}",
        f"--bs={bs}",
        f"--iodepth={depth}",
        f"--size={size}",
        "--time_based",
        f"--runtime={seconds}",
        "--ramp_time=1",
        "--randrepeat=0",
        "--output-format=json",
    ]


def argv_flushed(uris: list[str], seconds: float, size: int) -> list[str]:
    """The command line of one run of random 4 KiB writes, each followed by a flush.

    Args:
        uris: one job with one request under way for each.
        seconds: how long [s].
        size: of each image [bytes].
    """
    common = [
        "fio",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=1",
        "--fsync=1",
        f"--size={size}",
        "--time_based",
        f"--runtime={seconds}",
        "--ramp_time=1",
        "--randrepeat=0",
        "--group_reporting",
        "--output-format=json",
    ]
    for number, uri in enumerate(uris):
        common += [f"--name=b{number}", f"--uri={uri}"]
    return common


def run(command: list[str]) -> Sample:
    """Run it and read the JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    side = job["write" if job["write"]["total_ios"] else "read"]
    latency = side["clat_ns"]
    return Sample(
        iops=side["iops"],
        mib=side["bw_bytes"] / (1 << 20),
        mean_us=side["lat_ns"]["mean"] / 1e3,
        p99_us=latency.get("percentile", {}).get("99.000000", 0) / 1e3,
    )


def fill(uri: str, size: int) -> None:
    """Write every byte once, so that all is owned."""
    subprocess.run(
        [
            "fio",
            "--name=fill",
            "--ioengine=nbd",
            f"--uri={uri}",
            "--rw=write",
            "--bs=1M",
            "--iodepth=4",
            f"--size={size}",
            "--output-format=json",
            "--end_fsync=1",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
