# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

PRESENT: int
ZERO: int

def journal_marks(
    data: bytes | bytearray | memoryview, *, uuid: bytes, number: int, least: int = 0
) -> tuple[int, int]: ...
def pack_journal_record(
    uuid: bytes,
    number: int,
    position: int,
    sequence: int,
    fence: int,
    marks: Sequence[tuple[int, int, int]],
) -> bytes: ...
