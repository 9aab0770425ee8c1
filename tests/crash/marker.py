# SPDX-License-Identifier: Apache-2.0
"""Marks of the workload in the recorder's log: what the model is made from."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

from tests.crash.journal import Recorder


class Marker:
    """Puts marks into the recorder's log."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._ids = itertools.count(1)

    def begin(self, op: str, **what: Any) -> int:
        """Mark the begin of an operation; returns its number."""
        number = next(self._ids)
        self.note(id=number, op=op, **what)
        return number

    @contextlib.contextmanager
    def op(self, op: str, **what: Any) -> Iterator[int]:
        """Mark the begin and, if it succeeds, the end of an operation."""
        number = self.begin(op, **what)
        yield number
        self.note(end=number)

    def note(self, data: bytes = b"", **what: Any) -> None:
        """Mark anything else."""
        self._recorder.mark(json.dumps(what), data)
