# SPDX-License-Identifier: Apache-2.0
"""The nodes of a module's cluster."""

from __future__ import annotations

import pytest

from tests.helpers.cluster import Cluster, Node


@pytest.fixture
def a(cluster: Cluster) -> Node:
    return cluster.nodes[0]


@pytest.fixture
def b(cluster: Cluster) -> Node:
    return cluster.nodes[1]
