# SPDX-License-Identifier: Apache-2.0
"""One instance for all tests of ``vlmc``; each starts without any volume."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import archipelago
from tests.helpers.instance import Instance, running_instance


@pytest.fixture(scope="module")
def shared_instance() -> Iterator[Instance]:
    with running_instance() as running:
        yield running


@pytest.fixture
def instance(
    shared_instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Instance]:
    monkeypatch.setenv("ARCHIPELAGO_HOME", str(shared_instance.home))
    yield shared_instance
    with shared_instance.connect() as client:
        for volume in client.list():
            client.unlock(volume.name, force=True)
            with contextlib.suppress(archipelago.UsageError):
                client.unhold(volume.name)
            client.remove(volume.name)
