# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archipelago._header import StackEntry
from archipelago._layer_write import LayerWriter

@dataclass(frozen=True, slots=True)
class MergeStatistics:
    blocks: int
    zero_sectors: int
    extent_sectors: int
    content_sectors: int

def merge(
    entries: Sequence[StackEntry],
    block_size: int,
    out: LayerWriter,
    read: Callable[[StackEntry, int, int], bytes],
    *,
    bottom: bool = False,
) -> MergeStatistics: ...
