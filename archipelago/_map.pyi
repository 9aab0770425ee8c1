# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

LAYER: int
JOURNAL: int
NO_LIMIT: int
PRESENT: int
ZERO: int
REF_ZERO: int
REF_CONTENT: int
REF_EXTENT: int

class MapFormatError(ValueError): ...

@dataclass(frozen=True, slots=True)
class StackEntry:
    type: int
    owned: bool
    id: bytes
    number: int
    length: int
    extent_uuid: bytes
    extent_epoch: int
    limit: int

@dataclass(frozen=True, slots=True)
class Header:
    name: str
    uuid: bytes
    version: int
    fence: int
    size: int
    block_size: int
    epoch: int
    flags: int
    created_ns: int
    parent: str
    journal: int
    moving_to: str
    moved_from: str
    stack: tuple[StackEntry, ...]

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

@dataclass(frozen=True, slots=True)
class MergeStatistics:
    blocks: int
    zero_sectors: int
    extent_sectors: int
    content_sectors: int

def pack_header(h: Header) -> bytes: ...
def unpack_header(data: bytes | bytearray | memoryview) -> Header: ...
def journal_marks(data: bytes | bytearray | memoryview) -> tuple[int, int]: ...
def pack_journal_record(
    sequence: int, fence: int, marks: Sequence[tuple[int, int, int]]
) -> bytes: ...

class LayerWriter:
    def __init__(
        self, uuid: bytes, block_size: int, write: Callable[[int, bytes], object]
    ) -> None: ...
    def add_content(self, block: int, sha256: bytes) -> None: ...
    def add_zero(self, block: int, nr: int) -> None: ...
    def add_extent(self, block: int, nr: int, uuid: bytes, epoch: int) -> None: ...
    def finish(self) -> int: ...

def layer_statistics(read: Callable[[int, int], bytes]) -> LayerStatistics: ...
def layer_extents(read: Callable[[int, int], bytes]) -> list[tuple[bytes, int]]: ...
def layer_records(
    read: Callable[[int, int], bytes], block: int = 0
) -> Iterator[LayerRecord]: ...
def layer_contents(read: Callable[[int, int], bytes]) -> Iterator[bytes]: ...
def merge(
    entries: Sequence[StackEntry],
    block_size: int,
    out: LayerWriter,
    read: Callable[[StackEntry, int, int], bytes],
    *,
    bottom: bool = False,
) -> MergeStatistics: ...
