# SPDX-License-Identifier: Apache-2.0
"""A running instance and volumes to export from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

import archipelago
from tests.helpers.instance import Instance, running_instance
from tests.interop.nbd.clients import MIB, Export

_numbers = itertools.count()


@pytest.fixture(scope="session")
def instance() -> Iterator[Instance]:
    with running_instance() as running:
        yield running


@pytest.fixture
def client(instance: Instance) -> Iterator[archipelago.Client]:
    with instance.connect() as connected:
        yield connected


@pytest.fixture
def make_export(
    instance: Instance, client: archipelago.Client
) -> Callable[[int], Export]:
    """Create a volume of that many bytes under a name of its own."""

    def make(size: int) -> Export:
        name = f"nbd-{next(_numbers)}"
        client.create(name, size=size)
        return Export(instance, name, size)

    return make


@pytest.fixture
def export(make_export: Callable[[int], Export]) -> Export:
    return make_export(64 * MIB)
