# SPDX-License-Identifier: Apache-2.0
"""kill -9 of peers, and of the command itself, in the middle of changes.

A command ends with success or with one clear line; what it said it did is there, what
it said it did not is there or not, whole; and everything can be changed again after it.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from dataclasses import dataclass, field

import pytest

from tests.helpers.instance import BIN, Instance
from tests.integration.killing import MIB, ROUNDS, all_run, kill, load, pids
from tests.integration.verifier import UNIT, content, version_of

pytestmark = pytest.mark.slow

SIZE = 6 * MIB


@dataclass
class Names:
    """What must exist, and what may."""

    sure: dict[str, str] = field(default_factory=dict)
    maybe: dict[str, str] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=lambda: {SIZE})
    number: int = 0


def invent(rng: random.Random, volume: str, names: Names) -> tuple[list[str], str, str]:
    """A command, the name it makes, and what kind of thing that is."""
    names.number += 1
    snapshots = [name for name, kind in names.sure.items() if kind == "snapshot"]
    dice = rng.random()
    if dice < 0.4 or not snapshots:
        name = f"s{names.number}-{volume}"
        return ["snapshot", volume, name], name, "snapshot"
    if dice < 0.7:
        name = f"c{names.number}-{volume}"
        return ["create", name, "--snap", rng.choice(snapshots)], name, "clone"
    size = max(names.sizes) // MIB + 1
    return ["resize", volume, "--size", f"{size}M"], f"{size}", "size"


def note_outcome(names: Names, name: str, kind: str, done: bool) -> None:
    if kind == "size":
        names.sizes = {int(name) * MIB} | (set() if done else names.sizes)
    else:
        (names.sure if done else names.maybe)[name] = kind


def check_names(instance: Instance, volume: str, names: Names) -> None:
    """All that was promised exists, and nothing else."""
    listed = json.loads(instance.vlmc("list", "--json"))["volumes"]
    ours = {entry["name"]: entry for entry in listed if entry["name"].endswith(volume)}
    assert ours.pop(volume)["size"] in names.sizes
    assert set(names.sure) <= set(ours) <= set(names.sure) | set(names.maybe)


def check_contents(instance: Instance, names: Names) -> None:
    """A snapshot or clone holds what was written where it was written, unit by unit."""
    with instance.connect() as client:
        for name in names.sure:
            with client.open(name, read_only=True) as opened:
                data = opened.pread(min(SIZE, opened.size), 0)
                for unit in range(len(data) // UNIT):
                    piece = data[unit * UNIT : (unit + 1) * UNIT]
                    assert piece == content(unit, version_of(piece)), (name, unit)


def test_peers_killed_during_changes(instance: Instance, rng: random.Random) -> None:
    names = Names()
    with load(instance, "changed", rng, SIZE) as verifier:
        volume = verifier.export
        for _ in range(ROUNDS * 2):
            verifier.wait_answers(rng.randrange(50))
            command, name, kind = invent(rng, volume, names)
            living = pids(instance)
            chosen = rng.sample(sorted(living), rng.randrange(len(living) + 1))
            with subprocess.Popen(
                [BIN / "vlmc", *command],
                env=instance.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ) as running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(rng.uniform(0.1, 0.4))
                kill({living[peer] for peer in chosen}, rng)
                assert running.stderr is not None
                said = running.stderr.read()
                code = running.wait(60)
            print(command, "kill", chosen, code, said)
            assert code in (0, 1, 4, 5, 8), said
            assert (code == 0) == (said == ""), said
            assert said.count("\n") <= 1 and "internal" not in said, said
            note_outcome(names, name, kind, code == 0)
        verifier.wait_answers(50)
        all_run(instance)
        check_names(instance, volume, names)
    check_contents(instance, names)
    instance.vlmc("snapshot", volume, f"last-{volume}")
    instance.vlmc("rename", volume, f"renamed-{volume}")
    for name in [*names.sure, f"last-{volume}", f"renamed-{volume}"]:
        instance.vlmc("remove", name)


def test_commands_killed(instance: Instance, rng: random.Random) -> None:
    """A client that dies takes nothing with it."""
    names = Names()
    with load(instance, "cut", rng, SIZE) as verifier:
        volume = verifier.export
        for _ in range(ROUNDS * 2):
            command, name, kind = invent(rng, volume, names)
            with subprocess.Popen(
                [BIN / "vlmc", *command],
                env=instance.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            ) as running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(rng.uniform(0.02, 0.3))
                running.kill()
            note_outcome(names, name, kind, running.returncode == 0)
        verifier.wait_answers(50)
        # A change goes after those before it, so nothing is under way behind it.
        instance.vlmc("snapshot", volume, f"last-{volume}")
        names.sure[f"last-{volume}"] = "snapshot"
        check_names(instance, volume, names)
    check_contents(instance, names)
