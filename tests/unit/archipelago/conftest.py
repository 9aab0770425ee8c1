# SPDX-License-Identifier: Apache-2.0
"""An instance for each test and a client of it, or only a store to work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archipelago.client import Client
from tests.helpers.inprocess import Running, running
from tests.helpers.store import Store


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as started:
        yield started


@pytest.fixture
def client(instance: Running) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as started:
        yield started
