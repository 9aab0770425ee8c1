# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass

LAYER: int
JOURNAL: int
NO_LIMIT: int

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
    journal_least: int = 0

def pack_header(h: Header) -> bytes: ...
def unpack_header(data: bytes | bytearray | memoryview) -> Header: ...
