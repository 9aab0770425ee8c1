# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.nodes``: random rounds, from a seed.

Prints what a failed round did.  The folder of a failure stays, with all logs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.helpers.cluster import running_cluster
from tests.nodes.clock import build_clock, shifted
from tests.nodes.rounds import EVENTS, Rounds


def main() -> int:
    """Run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.nodes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--placement", default="together")
    parser.add_argument("--lease-ttl", default="1")
    parser.add_argument("--events", default=",".join(EVENTS))
    parser.add_argument(
        "--clocks", default="", help="how far each node's clock is ahead [s], like 9,-9"
    )
    parser.add_argument("--folder", type=Path, help="an empty one; a new one without")
    parser.add_argument("-v", "--verbose", action="store_true")
    chosen = parser.parse_args()
    seed = chosen.seed or random.SystemRandom().getrandbits(32)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="arch-nodes-"))
    events = chosen.events.split(",")
    clocks = [int(seconds) for seconds in chosen.clocks.split(",") if seconds]
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if chosen.verbose:
            print(f"{time.monotonic():.3f} {text}", flush=True)

    again = (
        f"--seed {seed} --rounds {chosen.rounds} --nodes {chosen.nodes} --placement "
        f"{chosen.placement} --lease-ttl {chosen.lease_ttl} --events {chosen.events}"
        f" --clocks={chosen.clocks}"
    )
    print(f"python -m tests.nodes {again}", flush=True)
    started = time.monotonic()
    number = 0
    try:
        with running_cluster(
            chosen.nodes,
            folder=folder,
            variables=_variables(folder, clocks),
            placement=chosen.placement,
            lease_ttl=chosen.lease_ttl,
        ) as cluster:
            rounds = Rounds(cluster, random.Random(seed), say, events, clocks)
            try:
                rounds.prepare()
                for number in range(1, chosen.rounds + 1):
                    said.clear()
                    say(f"round {number}")
                    rounds.round()
                rounds.finish()
            finally:
                rounds.dismiss()
        left = cluster.held_leases()
        assert not left, f"leases are held after a clean stop: {left}"
    except Exception:
        print(f"\nround {number} failed, seed {seed}; logs are in {folder}")
        print("\n".join(f"    {line}" for line in said))
        traceback.print_exc(file=sys.stdout)
        return 1
    shutil.rmtree(folder)
    spent = time.monotonic() - started
    print(f"{chosen.rounds} rounds in {spent:.0f} s: {json.dumps(rounds.counts)}")
    return 0


def _variables(folder: Path, clocks: list[int]) -> list[dict[str, str]]:
    """The environment of each node that has a clock of its own."""
    if not clocks:
        return []
    library = build_clock(folder)
    return [shifted(library, seconds) for seconds in clocks]


if __name__ == "__main__":
    sys.exit(main())
