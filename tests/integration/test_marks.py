# SPDX-License-Identifier: Apache-2.0
"""Writes that were answered and not flushed, when all peers and their client die."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.helpers.instance import Instance
from tests.integration.killing import all_run, check_answered, kill, pids, write_and_die

pytestmark = pytest.mark.slow


def opened(instance: Instance, name: str) -> str:
    return name


def renamed(instance: Instance, name: str) -> str:
    instance.vlmc("rename", name, f"{name}-new")
    return f"{name}-new"


def resized(instance: Instance, name: str) -> str:
    instance.vlmc("resize", name, "--size", "128M")
    return name


def snapshot(instance: Instance, name: str) -> str:
    instance.vlmc("snapshot", name, f"{name}-snap")
    return f"{name}-snap"


@pytest.mark.parametrize("act", [opened, renamed, resized, snapshot])
def test_answered_writes_outlive_all_peers(
    instance: Instance,
    rng: random.Random,
    act: Callable[[Instance, str], str],
) -> None:
    name = f"v-{act.__name__}"
    instance.vlmc("create", name, "--size", "64M")
    write_and_die(instance, name, rng)
    name = act(instance, name)
    check_answered(instance, name)
    check_answered(instance, name)  # closed and opened again
    kill(set(pids(instance).values()), rng)
    all_run(instance)
    check_answered(instance, name)
