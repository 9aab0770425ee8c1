# SPDX-License-Identifier: Apache-2.0
"""Write a layer: small pieces gathered into few requests."""

from __future__ import annotations

from archipelago.ids import ObjectId
from archipelago.objects import Store

_GATHER_BYTES = 1 << 20


class LayerFile:
    """The bytes of one layer on their way to the store.

    Args:
        store: where it goes.
        target: name of the layer.
    """

    def __init__(self, store: Store, target: ObjectId) -> None:
        self._store = store
        self._target = target
        self._start = 0
        self._gathered = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        """Take some bytes at `offset` [bytes]; later ones win."""
        end = self._start + len(self._gathered)
        if offset != end or len(self._gathered) >= _GATHER_BYTES:
            self._send()
            self._start = offset
        self._gathered += data

    def finish(self) -> None:
        """Send what is left and make all of it durable."""
        self._send()
        self._store.flush(self._target)

    def _send(self) -> None:
        if self._gathered:
            self._store.write(self._target, self._start, self._gathered, durable=False)
            self._gathered = bytearray()
