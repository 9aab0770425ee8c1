# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest

from xseg import Port, Segment
from xseg.testing import EchoPeer, temporary_segment


@pytest.fixture(autouse=True)
def _nothing_is_left(no_leaks: None) -> None:
    """Every test of the bindings frees what it takes."""


@pytest.fixture
def segment() -> Iterator[Segment]:
    with temporary_segment() as segment:
        yield segment


@pytest.fixture
def port(segment: Segment) -> Iterator[Port]:
    with segment.bind() as port:
        yield port


@pytest.fixture
def server(segment: Segment) -> Iterator[Port]:
    """A second port of the same thread, to serve what `port` sends."""
    with segment.bind(role="server") as server:
        yield server


@pytest.fixture
def echo(segment: Segment) -> Iterator[EchoPeer]:
    with EchoPeer(segment.name) as peer:
        yield peer
