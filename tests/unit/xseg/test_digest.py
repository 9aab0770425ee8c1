# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import random
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import xseg


def reference(data: bytes) -> bytes:
    return hashlib.sha256(data.rstrip(b"\0")).digest()


@given(st.binary(max_size=700), st.integers(0, 700))
@example(b"", 0)
@example(b"", 128)
@example(b"\x01", 127)
@example(b"\x00" * 129 + b"\x80", 255)
def test_a_name_is_the_digest_without_trailing_zeros(head: bytes, zeros: int) -> None:
    data = head + bytes(zeros)
    assert xseg.block_id(data) == reference(data)
    assert xseg.stripped_bytes(data) == len(data.rstrip(b"\0"))
    assert xseg.is_zero(data) == (not any(data))


def test_every_single_byte_is_seen_at_any_alignment() -> None:
    block = bytearray(1024)
    for start in (0, 1, 7, 31):
        view = memoryview(block)[start:]
        for i in range(len(view)):
            view[i] = 1
            assert xseg.stripped_bytes(view) == i + 1
            view[i] = 0
        assert xseg.is_zero(view)


def test_whole_blocks(rng: random.Random) -> None:
    block = rng.randbytes(1 << 20) + bytes(3 << 20)
    assert xseg.block_id(block) == reference(block)
    assert xseg.block_id(bytes(4 << 20)) == xseg.EMPTY_BLOCK_ID == reference(b"")


def test_any_contiguous_buffer_is_accepted() -> None:
    with pytest.raises(TypeError):
        xseg.block_id("text")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        xseg.block_id(memoryview(b"abcd")[::2])
    assert xseg.block_id(memoryview(b"abcd").cast("H")) == reference(b"abcd")


def test_threads_get_the_same_names(rng: random.Random) -> None:
    blocks = [rng.randbytes(256 << 10) for _ in range(4)]
    names: dict[int, bytes] = {}

    def work(i: int) -> None:
        names[i] = xseg.block_id(blocks[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {i: reference(block) for i, block in enumerate(blocks)}
