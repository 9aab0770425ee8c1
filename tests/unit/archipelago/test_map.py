# SPDX-License-Identifier: Apache-2.0
"""Stored map structures: what is written reads back, what is damaged is refused."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from archipelago._format import MapFormatError
from archipelago._header import (
    JOURNAL,
    LAYER,
    NO_LIMIT,
    Header,
    StackEntry,
    pack_header,
    unpack_header,
)
from archipelago._journal import PRESENT, ZERO, journal_marks, pack_journal_record
from archipelago._layer import (
    layer_contents,
    layer_extents,
    layer_records,
    layer_statistics,
)
from archipelago._layer_write import LayerWriter
from archipelago._merge import merge

SECTOR = 4096
BLOCK = 65536
PER_BLOCK = BLOCK // SECTOR
UUID = bytes(range(16))
HOLE = ("hole",)

HEADER = Header(
    name="größe",
    uuid=UUID,
    version=7,
    fence=3,
    size=10 << 30,
    block_size=4 << 20,
    epoch=5,
    flags=2,
    created_ns=1_700_000_000_000_000_000,
    parent="golden",
    journal=9,
    moving_to="",
    moved_from="old",
    stack=(
        StackEntry(JOURNAL, True, UUID, 8, 4096, UUID, 4, NO_LIMIT),
        StackEntry(LAYER, False, b"L" * 16, 0, 8192, bytes(16), 0, 1 << 30),
    ),
)


class Store:
    """Objects by name, in memory."""

    def __init__(self) -> None:
        self.objects: dict[bytes, bytearray] = {}

    def writer(self, name: bytes) -> Callable[[int, bytes], None]:
        data = self.objects.setdefault(name, bytearray())

        def write(offset: int, chunk: bytes) -> None:
            assert len(chunk) <= 1 << 20
            if offset + len(chunk) > len(data):
                data.extend(bytes(offset + len(chunk) - len(data)))
            data[offset : offset + len(chunk)] = chunk

        return write

    def reader(self, name: bytes) -> Callable[[int, int], bytes]:
        return lambda offset, size: bytes(self.objects[name][offset : offset + size])

    def read(self, entry: StackEntry, offset: int, size: int) -> bytes:
        name = entry.id if entry.type == LAYER else b"J%d" % entry.number
        return bytes(self.objects[name][offset : offset + size])


def sectors_of(read: Callable[[int, int], bytes], nr: int) -> list[tuple[object, ...]]:
    """Expand a layer's records into one reference per sector."""
    found: list[tuple[object, ...]] = [HOLE] * nr
    for record in layer_records(read):
        spans = record.spans or ((0, PER_BLOCK * record.count),)
        for start, count in spans:
            first = record.block * PER_BLOCK + start
            for sector in range(first, min(first + count, nr)):
                if found[sector] == HOLE:
                    found[sector] = (record.kind, record.id)
    return found


def test_header_round_trip() -> None:
    data = pack_header(HEADER)
    assert unpack_header(data) == HEADER
    magic, version, fence, length = struct.unpack_from("<4Q", data)
    assert (version, fence, length) == (7, 3, len(data))
    assert magic.to_bytes(8, "little") == b"ACPHDR01"


def test_every_bit_flip_of_a_header_is_refused() -> None:
    data = bytearray(pack_header(HEADER))
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MapFormatError):
            unpack_header(data)
        data[bit // 8] ^= 1 << bit % 8


def test_truncated_header_is_refused() -> None:
    data = pack_header(HEADER)
    for length in range(len(data)):
        with pytest.raises(MapFormatError):
            unpack_header(data[:length])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": ""}, "name is empty"),
        ({"name": "x" * 256}, "longer than 255"),
        ({"name": "a\0b"}, "not UTF-8"),
        ({"name": "\ud800"}, "not UTF-8"),
        ({"block_size": 12345}, "power of two"),
        ({"size": 1 << 61}, "largest volume"),
        ({"flags": 64}, "unknown header flag"),
        ({"uuid": bytes(16)}, "uuid is zero"),
        ({"uuid": b"short"}, "not 16"),
        ({"stack": HEADER.stack * 300}, "too many stack entries"),
        ({"stack": (replace(HEADER.stack[0], type=3),)}, "unknown type"),
        ({"stack": (replace(HEADER.stack[1], length=100),)}, "whole number of pages"),
        ({"stack": (replace(HEADER.stack[1], number=1),)}, "fields of a journal"),
    ],
)
def test_invalid_header_is_refused_with_the_reason(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(MapFormatError, match=reason):
        pack_header(replace(HEADER, **changes))  # type: ignore[arg-type]


def test_header_with_most_entries_fits() -> None:
    data = pack_header(replace(HEADER, stack=HEADER.stack[:1] * 512, name="n" * 255))
    assert len(data) <= 65536
    assert len(unpack_header(data).stack) == 512


def record(position: int, sequence: int, marks: list[tuple[int, int, int]]) -> bytes:
    return pack_journal_record(UUID, 1, position, sequence, 1, marks)


def marks_of(data: bytes, least: int = 0) -> tuple[int, int]:
    return journal_marks(data, uuid=UUID, number=1, least=least)


def test_journal_ends_before_a_torn_record() -> None:
    first = record(0, 0, [(0, 4, PRESENT), (9, 1, ZERO)])
    second = record(len(first), 1, [(100, 1, PRESENT)])
    assert marks_of(b"") == (0, 0)
    assert marks_of(first + second) == (3, len(first + second))
    for cut in range(len(second)):
        assert marks_of(first + second[:cut]) == (2, len(first))
    assert marks_of(first + bytes(5000)) == (2, len(first))


@pytest.mark.parametrize("more", [False, True])
def test_damage_of_a_journal_record_is_an_error(more: bool) -> None:
    first = record(0, 0, [(0, 4, PRESENT)])
    second = bytearray(record(len(first), 1, [(100, 1, PRESENT)]))
    third = record(len(first) + len(second), 2, [(100, 1, PRESENT)]) if more else b""
    for bit in range(len(second) * 8):
        second[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MapFormatError):
            marks_of(first + bytes(second) + third)
        second[bit // 8] ^= 1 << bit % 8


def test_a_journal_belongs_to_one_volume_and_number() -> None:
    data = record(0, 0, [(0, 4, PRESENT)])
    assert journal_marks(data, uuid=UUID, number=1) == (1, len(data))
    for uuid, number in ((bytes(16), 1), (UUID, 2)):
        with pytest.raises(MapFormatError):
            journal_marks(data, uuid=uuid, number=number)


def test_a_journal_that_is_shorter_than_it_was_is_damaged() -> None:
    first = record(0, 0, [])
    second = record(len(first), 1, [(100, 1, PRESENT)])
    assert marks_of(first + second, least=len(first)) == (1, len(first + second))
    for data in (b"", first[:-1]):
        with pytest.raises(MapFormatError):
            marks_of(data, least=len(first))


def test_empty_layer() -> None:
    store = Store()
    writer = LayerWriter(UUID, BLOCK, store.writer(UUID))
    assert writer.finish() == 4096
    assert list(layer_records(store.reader(UUID))) == []
    assert layer_extents(store.reader(UUID), UUID) == []


def test_layer_holds_what_was_added() -> None:
    store = Store()
    writer = LayerWriter(UUID, BLOCK, store.writer(UUID))
    digests = [hashlib.sha256(b"%d" % i).digest() for i in range(5000)]
    for i, digest in enumerate(digests):
        writer.add_content(i * 2, digest)
    writer.add_zero(20000, 1 << 20)
    writer.add_extent(1 << 30, 10, b"V" * 16, 4)
    writer.add_extent((1 << 30) + 10, 10, b"V" * 16, 4)
    length = writer.finish()
    assert length == len(store.objects[UUID])
    read = store.reader(UUID)
    assert list(layer_contents(read)) == digests
    assert layer_extents(read, UUID) == [(b"V" * 16, 4)]
    statistics = layer_statistics(read)
    assert statistics.uuid == UUID
    assert statistics.length == length
    assert statistics.content_sectors == 5000 * PER_BLOCK
    assert statistics.zero_sectors == PER_BLOCK << 20
    assert statistics.extent_sectors == 20 * PER_BLOCK
    assert statistics.height == 2
    records = list(layer_records(read, 9999))
    assert records[0].block == 20000
    assert records[0].count == 1 << 20
    assert records[1].count == 20
    assert records[1].id == b"V" * 16 + struct.pack("<Q", 4)


def test_layer_with_many_extents() -> None:
    store = Store()
    writer = LayerWriter(UUID, BLOCK, store.writer(UUID))
    for i in range(1000):
        writer.add_extent(i, 1, b"V" * 16, i)
    writer.finish()
    read = store.reader(UUID)
    assert layer_extents(read, UUID) == [(b"V" * 16, i) for i in range(1000)]
    assert [r.id[16] for r in layer_records(read)] == [i % 256 for i in range(1000)]


def test_layer_refuses_blocks_out_of_order() -> None:
    writer = LayerWriter(UUID, BLOCK, lambda offset, data: None)
    writer.add_zero(10, 5)
    with pytest.raises(ValueError, match="ascending"):
        writer.add_zero(14, 1)
    with pytest.raises(ValueError, match="32 bytes"):
        writer.add_content(20, b"x")
    with pytest.raises(ValueError, match="power of two"):
        LayerWriter(UUID, 1000, lambda offset, data: None)


def test_every_bit_flip_of_a_layer_is_refused() -> None:
    store = Store()
    writer = LayerWriter(UUID, BLOCK, store.writer(UUID))
    writer.add_extent(3, 1, b"V" * 16, 4)
    writer.finish()
    data = store.objects[UUID]
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MapFormatError):
            list(layer_records(store.reader(UUID)))
        data[bit // 8] ^= 1 << bit % 8


def test_errors_of_the_callbacks_come_through() -> None:
    def broken(offset: int, data: bytes) -> None:
        raise OSError(28, "full")

    writer = LayerWriter(UUID, BLOCK, broken)
    with pytest.raises(OSError, match="full"):
        writer.finish()

    def unreadable(offset: int, size: int) -> bytes:
        raise OSError(5, "broken disk")

    with pytest.raises(OSError, match="broken disk"):
        layer_statistics(unreadable)


def random_journal(rng: random.Random, nr: int, uuid: bytes, number: int) -> bytes:
    data = b""
    for sequence in range(rng.randrange(1, 4)):
        marks = []
        for _ in range(rng.randrange(1, 12)):
            start = rng.randrange(nr)
            count = rng.randrange(1, rng.choice((3, 40)))
            count = min(count, nr - start)
            marks.append((start, count, rng.choice((PRESENT, ZERO))))
        data += pack_journal_record(uuid, number, len(data), sequence, 1, marks)
    return data


def journal_sectors(data: bytes, extent: bytes, nr: int) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = [HOLE] * nr
    at = 0
    while at < len(data):
        length, count = struct.unpack_from("<2I", data, at + 8)
        for i in range(count):
            start, sectors, kind = struct.unpack_from("<Q2I", data, at + 32 + i * 16)
            what: tuple[object, ...] = (2, extent) if kind == PRESENT else (0, b"")
            found[start : start + sectors] = [what] * sectors
        at += length
    return found


@pytest.mark.parametrize("seed", range(40))
def test_merge_says_the_same_as_the_stack(seed: int) -> None:
    rng = random.Random(seed)
    blocks = rng.choice((3, 20, 300))
    nr = blocks * PER_BLOCK
    store = Store()
    model: list[tuple[object, ...]] = [HOLE] * nr
    entries: list[StackEntry] = []
    for depth in range(rng.randrange(1, 6)):  # bottom first
        limit = rng.choice((NO_LIMIT, rng.randrange(nr * SECTOR)))
        below = min(nr, -(-limit // SECTOR))
        if rng.random() < 0.5:
            extent = b"%16d" % depth
            store.objects[b"J%d" % depth] = bytearray(
                random_journal(rng, nr, UUID, depth)
            )
            data = bytes(store.objects[b"J%d" % depth])
            says = journal_sectors(data, extent + struct.pack("<Q", depth), nr)
            entry = StackEntry(
                JOURNAL, True, UUID, depth, len(data), extent, depth, limit
            )
        else:
            name = b"L%15d" % depth
            writer = LayerWriter(name, BLOCK, store.writer(name))
            block = 0
            while block < blocks:
                what = rng.randrange(4)
                count = min(rng.randrange(1, 5), blocks - block)
                if what == 0:
                    writer.add_zero(block, count)
                elif what == 1:
                    writer.add_extent(block, count, b"E" * 16, depth)
                elif what == 2:
                    count = 1
                    writer.add_content(block, rng.randbytes(32))
                block += count
            length = writer.finish()
            says = sectors_of(store.reader(name), nr)
            entry = StackEntry(LAYER, False, name, 0, length, bytes(16), 0, limit)
        entries.insert(0, entry)
        for sector in range(below):
            if says[sector] != HOLE:
                model[sector] = says[sector]
    for bottom in (False, True):
        name = b"merged%10d" % bottom
        writer = LayerWriter(name, BLOCK, store.writer(name))
        statistics = merge(entries, BLOCK, writer, store.read, bottom=bottom)
        writer.finish()
        got = sectors_of(store.reader(name), nr)
        if bottom:
            got = [HOLE if s[0] == 0 else s for s in got]
            model = [HOLE if s[0] == 0 else s for s in model]
        assert got == model
        stored = layer_statistics(store.reader(name))
        assert statistics.extent_sectors == stored.extent_sectors
        again = b"again.%10d" % bottom
        writer = LayerWriter(again, BLOCK, store.writer(again))
        whole = StackEntry(LAYER, True, name, 0, stored.length, bytes(16), 0, NO_LIMIT)
        merge([whole], BLOCK, writer, store.read)
        writer.finish()
        assert sectors_of(store.reader(again), nr) == sectors_of(store.reader(name), nr)


def test_merge_of_a_damaged_layer_fails() -> None:
    store = Store()
    writer = LayerWriter(b"L" * 16, BLOCK, store.writer(b"L" * 16))
    writer.add_zero(0, 10)
    length = writer.finish()
    store.objects[b"L" * 16][5000] ^= 1
    entry = StackEntry(LAYER, True, b"L" * 16, 0, length, bytes(16), 0, NO_LIMIT)
    out = LayerWriter(UUID, BLOCK, store.writer(UUID))
    with pytest.raises(MapFormatError, match="page 1 of layer"):
        merge([entry], BLOCK, out, store.read)


def test_merge_of_a_cut_journal_fails() -> None:
    store = Store()
    store.objects[b"J1"] = bytearray(record(0, 0, [(0, 1, PRESENT)]))
    length = len(store.objects[b"J1"])
    del store.objects[b"J1"][-1]
    entry = StackEntry(JOURNAL, True, UUID, 1, length, UUID, 1, NO_LIMIT)
    out = LayerWriter(UUID, BLOCK, store.writer(UUID))
    with pytest.raises(MapFormatError, match="journal 1"):
        merge([entry], BLOCK, out, store.read)
