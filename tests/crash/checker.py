# SPDX-License-Identifier: Apache-2.0
"""Compares what a store holds with the model."""

from __future__ import annotations

from collections import Counter

from tests.crash.model import Expected, Model, differs
from tests.crash.reader import BrokenStore, Found


class Checker:
    """Compares what a store holds with the model."""

    def __init__(self) -> None:
        self._good: dict[str, tuple[bytes, Expected, int]] = {}

    def check(self, model: Model, found: dict[str, Found]) -> None:
        """Check all volumes.

        Raises:
            BrokenStore: a volume is missing, there twice, too old or wrong.
        """
        holders: Counter[int] = Counter()
        for name, volume in found.items():
            number = self._owner(model, name)
            holders[number] += 1
            if holders[number] > 1:
                raise BrokenStore(f"volume {number} has two names, one is {name}")
            self._check_volume(name, model.volumes[number], volume)
        for number, expected in model.volumes.items():
            if not holders[number] and None not in expected.names:
                raise BrokenStore(f"volume {number} {expected.names} is gone")

    def _owner(self, model: Model, name: str) -> int:
        for number, volume in model.volumes.items():
            if name in volume.names:
                return number
        raise BrokenStore(
            f"there is a volume {name}, which was never made, or was removed"
        )

    def _check_volume(self, name: str, expected: Expected, volume: Found) -> None:
        good = self._good.get(name)
        now = (volume.data, expected, expected.version)
        if good is not None and good[0] is now[0] and good[1:] == now[1:]:
            return
        size = len(volume.data)
        if size not in expected.sizes:
            raise BrokenStore(f"{name} has {size} bytes, not {expected.sizes}")
        if volume.read_only != expected.read_only:
            raise BrokenStore(f"{name} is read-only: {volume.read_only}")
        # What a change that was not answered cut off may come back, or not.
        both = min(size, expected.sizes[-1]) if expected.unsure else size
        wrong = differs(expected, volume.data[:both], both)
        if wrong:
            raise BrokenStore(f"{name}: {wrong}")
        self._good[name] = now
