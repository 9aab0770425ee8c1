# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xseg.constants import LeaseFlag, ObjectKind, Reference, RunFlag, VolumeFlag
from xseg.errors import DataCorrupt
from xseg.payload import (
    JournalInfo,
    Lease,
    ListEntry,
    MapInfo,
    ObjectInfo,
    ObjectName,
    Presence,
    Run,
    Versioned,
    VolumeInfo,
    unpack_list_entries,
    unpack_runs,
    unpack_volumes,
)

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
ID = st.binary(min_size=32, max_size=32)


def text(limit: int) -> st.SearchStrategy[str]:
    return st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    ).filter(lambda s: len(s.encode()) < limit)


OBJECTS = st.builds(ObjectName, st.sampled_from(ObjectKind), ID)
JOURNALS = st.builds(JournalInfo, U64, U64, U64)
RECORDS = st.one_of(
    OBJECTS,
    JOURNALS,
    st.builds(
        Run, U64, U64, st.sampled_from(Reference), st.builds(RunFlag, U32), U64, ID
    ),
    st.builds(
        VolumeInfo,
        st.binary(min_size=16, max_size=16),
        U64,
        U64,
        U64,
        U64,
        U32,
        st.builds(VolumeFlag, U32),
        U32,
        text(256),
        st.booleans(),
    ),
    st.builds(ObjectInfo, U64, U64, U64, U64, text(16), text(16), st.booleans()),
    st.builds(ListEntry, OBJECTS, U64, U64, U64, U64),
    st.builds(
        Lease,
        U64,
        U64,
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=16, max_size=16),
        U32,
        st.builds(LeaseFlag, U32),
        text(64),
    ),
    st.builds(
        Presence,
        st.binary(min_size=16, max_size=16),
        U64,
        U64,
        U64,
        U64,
        st.binary(min_size=16, max_size=16),
        U64,
        U64,
        U32,
        text(64),
    ),
    st.builds(MapInfo, JOURNALS, U64, U64, U64, U64, U64),
    st.builds(Versioned, U64, U64, U64, U64),
)

INFO = VolumeInfo(bytes(16), 1 << 30, 1, 1, 7, 4 << 20, VolumeFlag(0), 1, "vm-1")


@given(RECORDS)
def test_a_record_reads_back(record: Run) -> None:
    packed = record.pack()
    assert len(packed) == record.LAYOUT.size
    assert type(record).unpack(packed) == record
    assert type(record).unpack(memoryview(packed + b"more")) == record


@given(RECORDS)
def test_a_record_that_is_cut_is_damaged(record: Run) -> None:
    with pytest.raises(DataCorrupt):
        type(record).unpack(record.pack()[:-1])


def test_unknown_kinds_are_damaged() -> None:
    with pytest.raises(DataCorrupt, match="unknown kind 99"):
        ObjectName.unpack((99).to_bytes(4, "little") + bytes(36))
    run = bytearray(Run(0, 4096, Reference.ZERO).pack())
    run[16] = 99
    with pytest.raises(DataCorrupt, match="99"):
        Run.unpack(run)


def test_text_that_is_not_utf8_is_damaged() -> None:
    packed = bytearray(INFO.pack())
    packed[65] = 0xFF
    with pytest.raises(DataCorrupt, match="UTF-8"):
        VolumeInfo.unpack(packed)
    lease = bytearray(Lease(host="a").pack())
    lease[56] = 0xFF
    with pytest.raises(DataCorrupt, match="host"):
        Lease.unpack(lease)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="255"):
        replace(INFO, name="x" * 256).pack()
    with pytest.raises(ValueError, match="host takes at most 63"):
        Lease(host="x" * 64).pack()
    with pytest.raises(ValueError, match="32 bytes"):
        ObjectName(ObjectKind.LAYER, b"short").pack()
    with pytest.raises(ValueError, match="16 bytes"):
        replace(INFO, uuid=b"short").pack()


def test_rows_of_records_read_back() -> None:
    runs = [Run(i * 4096, 4096, Reference.ZERO) for i in range(5)]
    data = b"".join(run.pack() for run in runs)
    assert unpack_runs(data + bytes(40), 5) == runs
    with pytest.raises(DataCorrupt, match="6 records"):
        unpack_runs(data, 6)
    with pytest.raises(DataCorrupt):
        unpack_runs(data, -1)
    entry = ListEntry(ObjectName(ObjectKind.HEADER, bytes(32)), 1, 2, 3)
    assert unpack_list_entries(entry.pack() * 2, 2) == [entry, entry]
    assert unpack_volumes(INFO.pack(), 1) == [INFO]
    assert unpack_volumes(INFO.pack() * 3) == [INFO] * 3
