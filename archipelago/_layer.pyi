# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Iterator
from dataclasses import dataclass

REF_ZERO: int
REF_CONTENT: int
REF_EXTENT: int

@dataclass(frozen=True, slots=True)
class LayerStatistics:
    uuid: bytes
    block_size: int
    length: int
    records: int
    height: int
    extents: int
    first_block: int
    end_block: int
    zero_sectors: int
    extent_sectors: int
    content_sectors: int

@dataclass(frozen=True, slots=True)
class LayerRecord:
    block: int
    count: int
    kind: int
    id: bytes
    spans: tuple[tuple[int, int], ...] | None

def layer_statistics(read: Callable[[int, int], bytes]) -> LayerStatistics: ...
def layer_extents(
    read: Callable[[int, int], bytes], uuid: bytes
) -> list[tuple[bytes, int]]: ...
def layer_records(
    read: Callable[[int, int], bytes], block: int = 0
) -> Iterator[LayerRecord]: ...
def layer_contents(read: Callable[[int, int], bytes]) -> Iterator[bytes]: ...
