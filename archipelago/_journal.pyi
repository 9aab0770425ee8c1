# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

PRESENT: int
ZERO: int

def journal_marks(data: bytes | bytearray | memoryview) -> tuple[int, int]: ...
def pack_journal_record(
    sequence: int, fence: int, marks: Sequence[tuple[int, int, int]]
) -> bytes: ...
