# SPDX-License-Identifier: Apache-2.0
"""``make bench``: every benchmark, one report.

Usage: python -m benchmarks.run [--quick] [--only GROUP,...] [--json FILE] [--work DIR]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks import flush, nbd_io, pauses, volumes
from benchmarks.report import Row, show

Group = Callable[[Path, float, int], tuple[list[Row], list[str]]]

GROUPS: dict[str, tuple[str, Group]] = {
    "owned": ("I/O over NBD, owned sectors", nbd_io.owned),
    "fresh": ("I/O over NBD, fresh clones", nbd_io.fresh),
    "flush": ("writes with a flush each, over NBD", flush.flushed),
    "latency": ("clone and snapshot", lambda work, seconds, nr: volumes.latency(work)),
    "ingest": ("import", lambda work, seconds, nr: volumes.ingest(work)),
    "amplification": (
        "write amplification",
        lambda work, seconds, nr: volumes.amplification(work),
    ),
    "pauses": (
        "pauses when peers die",
        lambda work, seconds, nr: pauses.pauses(work, 3 * nr),
    ),
}


def main() -> int:
    """Run the groups that were asked for."""
    parser = argparse.ArgumentParser(
        description="Benchmarks against qemu-nbd and nbdkit."
    )
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, by comma")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument(
        "--work", type=Path, default=Path("build/bench"), help="scratch folder"
    )
    options = parser.parse_args()
    seconds, nr = (2.0, 1) if options.quick else (5.0, 3)
    unknown = set(options.only.split(",")) - set(GROUPS)
    if unknown:
        parser.error(
            f"no such group: {', '.join(unknown)}; there are {', '.join(GROUPS)}"
        )
    everything: list[dict[str, object]] = []
    work = options.work.resolve()
    talk = Console(stderr=True)
    for name in options.only.split(","):
        title, group = GROUPS[name]
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        with talk.status(f"{title} ..."):
            rows, notes = group(work, seconds, nr)
        show(title, rows, notes)
        everything += [row.to_json() for row in rows]
    shutil.rmtree(work, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
