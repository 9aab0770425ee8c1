# SPDX-License-Identifier: Apache-2.0
"""kill -9 and restarts of peers under load: no answer is wrong, lost or an error.

The supervisor lives, so every write that was answered is there, flushed or not.
"""

from __future__ import annotations

import random

import pytest

from archipelago.settings import ROLES
from tests.helpers.instance import Instance
from tests.integration.killing import (
    ROUNDS,
    Census,
    all_run,
    census,
    kill,
    load,
    peer_descriptors,
    pids,
    same_as,
    until,
)

pytestmark = pytest.mark.slow


def settled(instance: Instance, rng: random.Random) -> Census:
    """What an instance holds at rest after all its peers have died once."""
    with load(instance, "settle", rng) as verifier:
        verifier.wait_answers(10)
        kill(set(pids(instance).values()), rng)
        verifier.wait_answers(10)
    all_run(instance)
    return census(instance)


def test_all_peers_killed_again_and_again(
    instance: Instance, rng: random.Random
) -> None:
    before = settled(instance, rng)
    with load(instance, "all", rng) as verifier:
        for _ in range(ROUNDS):
            verifier.wait_answers(rng.randrange(300))
            kill(set(pids(instance).values()), rng)
            verifier.wait_answers(1)
        verifier.wait_answers(100)
    all_run(instance)
    same_as(instance, before)


@pytest.mark.parametrize("victim", ROLES)
def test_one_peer_killed(apart: Instance, rng: random.Random, victim: str) -> None:
    with load(apart, victim, rng) as verifier:
        for _ in range(ROUNDS):
            verifier.wait_answers(rng.randrange(300))
            # A death need not have kept any answer back: wait for the next process.
            until(lambda: victim in pids(apart), lambda: f"{victim} runs")
            kill({pids(apart)[victim]}, rng)
            verifier.wait_answers(1)
        verifier.wait_answers(100)
    all_run(apart)


def test_any_peers_killed_in_any_order(apart: Instance, rng: random.Random) -> None:
    before = settled(apart, rng)
    files = peer_descriptors(apart)
    with load(apart, "any", rng) as verifier:
        for _ in range(ROUNDS * 2):
            verifier.wait_answers(rng.randrange(100))
            living = pids(apart)
            chosen = rng.sample(sorted(living), rng.randrange(len(living) + 1))
            print("kill", chosen)
            kill({living[name] for name in chosen}, rng)
        verifier.wait_answers(100)
    all_run(apart)
    same_as(apart, before)
    assert peer_descriptors(apart) <= files + 16


def test_restarts_under_load(instance: Instance, rng: random.Random) -> None:
    before = settled(instance, rng)
    with load(instance, "restarted", rng) as verifier:
        verifier.orderly = True
        verifier.wait_answers(10)
        instance.archipelago("restart")
        for role in rng.sample(ROLES, 4):
            verifier.wait_answers(rng.randrange(100))
            instance.archipelago("restart", role)
        verifier.wait_answers(100)
    same_as(instance, before)
