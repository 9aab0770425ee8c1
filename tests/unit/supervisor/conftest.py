# SPDX-License-Identifier: Apache-2.0
"""Instances that a test starts, breaks and stops by itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archipelago import paths
from tests.helpers.instance import Instance


@pytest.fixture
def make_instance() -> Iterator[Callable[..., Instance]]:
    """Make instances that are not started; what they leave behind fails the test."""
    made: list[Instance] = []

    def make(**settings: str) -> Instance:
        # A short path, so that sockets are where their names say.
        home = Path(tempfile.mkdtemp(prefix="arch-", dir="/tmp"))
        made.append(Instance(home, settings))
        return made[-1]

    yield make
    for instance in made:
        instance.stop()
        assert not segment_file(instance).exists()
        assert list((instance.home / "run").glob("*")) == []
        shutil.rmtree(instance.home)


def segment_file(instance: Instance) -> Path:
    return Path("/dev/shm") / paths.segment_name(instance.home)


@pytest.fixture(params=["together", "apart"])
def instance(
    request: pytest.FixtureRequest, make_instance: Callable[..., Instance]
) -> Instance:
    """A started instance, in either placement."""
    made = make_instance(placement=request.param)
    made.start()
    return made
