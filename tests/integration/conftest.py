# SPDX-License-Identifier: Apache-2.0
"""Instances whose processes are killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.instance import Instance, running_instance


@pytest.fixture(scope="module", params=["together", "apart"])
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """One of either placement for all tests of a file."""
    with running_instance(placement=request.param, backend="file") as running:
        yield running


@pytest.fixture(scope="module")
def apart() -> Iterator[Instance]:
    """One whose peers can die one by one."""
    with running_instance(placement="apart", backend="file") as running:
        yield running
