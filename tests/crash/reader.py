# SPDX-License-Identifier: Apache-2.0
"""Reads a store as its formats say, without any of the programs that keep it.

A second implementation of what a map means (docs/format), so that one mistake in the
mapper cannot hide the same mistake here.  Only the codecs of pages and checksums
are shared.  Works on a store in memory: path -> bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from archipelago._header import LAYER, Header, StackEntry, unpack_header
from archipelago._journal import PRESENT, journal_marks
from archipelago._layer import REF_CONTENT, REF_EXTENT, layer_records
from tests.crash.lease import fence_of
from xseg.constants import VolumeFlag

SECTOR = 4096
_RECORD = struct.Struct("<IIIIQQ")
_MARK = struct.Struct("<QII")

State = Mapping[str, "bytes | None"]
#: Gives the bytes of a file; a second argument is what a missing one stands for.
Getter = Callable[..., bytes]


class BrokenStore(Exception):
    """The store needs repair: what a power cut must never leave."""


@dataclass(frozen=True)
class Found:
    """A volume or snapshot of the store."""

    data: bytes
    read_only: bool


@dataclass(frozen=True, slots=True)
class _Run:
    """Bytes [start, end) of a volume and where they are: None for zeros."""

    start: int
    end: int
    path: str | None
    offset: int


class Reader:
    """Reads states, remembering what did not change between them."""

    def __init__(self) -> None:
        self._runs: dict[tuple[object, ...], list[_Run]] = {}
        self._volumes: dict[str, tuple[list[object], Found]] = {}
        self._verified: dict[str, bytes] = {}
        self._headers: dict[bytes, Header] = {}

    def read(self, state: State) -> dict[str, Found]:
        """Read all volumes of a store.

        Returns:
            By name.

        Raises:
            BrokenStore: something is torn, missing or there twice.
        """
        headers = self._live(state)
        found: dict[str, Found] = {}
        uuids: dict[bytes, str] = {}
        for name, (path, header) in headers.items():
            if header.uuid in uuids:
                raise BrokenStore(f"{name} and {uuids[header.uuid]} are one volume")
            uuids[header.uuid] = name
            _check_fence(state, header)
            found[name] = self._volume(state, path, header)
        return found

    # ---- headers ---------------------------------------------------------------------

    def _live(self, state: State) -> dict[str, tuple[str, Header]]:
        stored: dict[str, tuple[str, Header]] = {}
        for path, data in state.items():
            if data is None or not path.startswith("maps/headers/"):
                continue
            header = self._headers.get(data)
            if header is None:
                try:
                    header = unpack_header(data)
                except ValueError as error:
                    raise BrokenStore(f"{path}: {error}") from error
                self._headers[data] = header
            if hashlib.sha256(header.name.encode()).hexdigest() != path[-64:]:
                raise BrokenStore(f"{path} is the header of {header.name}")
            stored[header.name] = path, header
        return {
            name: (path, header)
            for name, (path, header) in stored.items()
            if not _is_dead(header, stored)
        }

    # ---- contents --------------------------------------------------------------------

    def _volume(self, state: State, path: str, header: Header) -> Found:
        known = self._volumes.get(path)
        if known is not None:
            used, found = known
            pairs = zip(used[::2], used[1::2], strict=True)
            if all(state.get(str(name)) is data for name, data in pairs):
                return found
        used = []

        def get(name: str, missing: bytes | None = None) -> bytes:
            data = state.get(name)
            used.extend((name, data))
            if data is None and missing is None:
                raise BrokenStore(f"{header.name} refers to {name}, which is not there")
            return data if data is not None else missing or b""

        get(path)
        length = -(-header.size // SECTOR) * SECTOR
        content = bytearray(length)
        for entry in reversed(header.stack):
            for run in self._entry(entry, get, header):
                self._paint(content, run, min(entry.limit, length), get)
        for run in self._current(header, get):
            self._paint(content, run, length, get)
        read_only = bool(header.flags & VolumeFlag.READONLY)
        found = Found(bytes(content[: header.size]), read_only)
        self._volumes[path] = used, found
        return found

    def _paint(self, content: bytearray, run: _Run, limit: int, get: Getter) -> None:
        end = min(run.end, limit)
        if run.start >= end:
            return
        size = end - run.start
        if run.path is None:
            content[run.start : end] = bytes(size)
            return
        data = get(run.path)
        if run.path.startswith("data/content/"):
            self._verify(run.path, data)
        piece = data[run.offset : run.offset + size]
        content[run.start : end] = piece.ljust(size, b"\0")

    def _verify(self, path: str, data: bytes) -> None:
        if self._verified.get(path) is data:
            return
        if hashlib.sha256(data).hexdigest() != path[-64:]:
            raise BrokenStore(f"{path} has other bytes than its name says")
        self._verified[path] = data

    def _current(self, header: Header, get: Getter) -> list[_Run]:
        if not header.journal:
            return []
        path = f"maps/journals/{header.uuid.hex()}.{header.journal:016x}"
        data = get(path, b"")
        journal = header.uuid, header.journal
        extent = header.uuid, header.epoch
        return self._marks(path, data, journal, None, extent, header.journal_least)

    def _entry(self, entry: StackEntry, get: Getter, header: Header) -> list[_Run]:
        if entry.type != LAYER:
            path = f"maps/journals/{entry.id.hex()}.{entry.number:016x}"
            data = get(path)
            extent = (entry.extent_uuid, entry.extent_epoch)
            journal = entry.id, entry.number
            return self._marks(path, data, journal, entry.length, extent)
        path = f"maps/layers/{entry.id.hex()}"
        data = get(path)
        key = (path, data)
        runs = self._runs.get(key)
        if runs is None:
            if len(data) != entry.length:
                raise BrokenStore(f"{path} has {len(data)} bytes, not {entry.length}")
            try:
                runs = list(_layer_runs(data, header.block_size))
            except ValueError as error:
                raise BrokenStore(f"{path}: {error}") from error
            self._runs[key] = runs
        return runs

    def _marks(
        self,
        path: str,
        data: bytes,
        journal: tuple[bytes, int],
        length: int | None,
        extent: tuple[bytes, int],
        least: int = 0,
    ) -> list[_Run]:
        key = (path, data, length, extent, least)
        runs = self._runs.get(key)
        if runs is not None:
            return runs
        whole = data if length is None else data[:length]
        try:
            _, valid = journal_marks(
                whole, uuid=journal[0], number=journal[1], least=least
            )
        except ValueError as error:
            raise BrokenStore(f"{path}: {error}") from error
        if length is not None and valid != length:
            raise BrokenStore(f"{path} holds {valid} bytes of records, not {length}")
        runs = list(_journal_runs(whole[:valid], _extent_path(*extent)))
        self._runs[key] = runs
        return runs


def _check_fence(state: State, header: Header) -> None:
    """A fence never goes back, else the next holder could not change the header."""
    path = f"maps/leases/{header.uuid.hex()}"
    data = state.get(path)
    fence = 0 if data is None else fence_of(data)
    if fence is None:
        raise BrokenStore(f"{path} has no whole slot")
    if fence < header.fence:
        raise BrokenStore(
            f"{path} has fence {fence}, the header of {header.name} {header.fence}"
        )


def _is_dead(header: Header, stored: dict[str, tuple[str, Header]]) -> bool:
    if header.moving_to or not header.moved_from:
        return bool(header.moving_to)
    other = stored.get(header.moved_from)
    return (
        other is None
        or other[1].uuid != header.uuid
        or other[1].moving_to != header.name
    )


def _extent_path(uuid: bytes, epoch: int) -> str:
    return f"data/extents/{uuid.hex()}/{epoch:016x}.0"


def _journal_runs(data: bytes, extent: str) -> Iterator[_Run]:
    at = 0
    while at < len(data):
        _, _, length, marks, _, _ = _RECORD.unpack_from(data, at)
        for i in range(marks):
            start, nr, kind = _MARK.unpack_from(
                data, at + _RECORD.size + i * _MARK.size
            )
            low, high = start * SECTOR, (start + nr) * SECTOR
            yield _Run(low, high, extent if kind == PRESENT else None, low)
        at += length


def _layer_runs(data: bytes, block_size: int) -> Iterator[_Run]:
    """In the order of painting: the first record of a block wins, so it comes last."""
    records = list(layer_records(lambda off, size: data[off : off + size]))
    for record in reversed(records):
        first = record.block * block_size
        if record.spans is None:
            spans = [(first, first + record.count * block_size)]
        else:
            spans = [
                (first + s * SECTOR, first + (s + nr) * SECTOR)
                for s, nr in record.spans
            ]
        for low, high in spans:
            if record.kind == REF_EXTENT:
                epoch = int.from_bytes(record.id[16:24], "little")
                yield _Run(low, high, _extent_path(record.id[:16], epoch), low)
            elif record.kind == REF_CONTENT:
                name = record.id.hex()
                path = f"data/content/{name[:2]}/{name[2:4]}/{name}"
                yield _Run(low, high, path, low - first)
            else:
                yield _Run(low, high, None, 0)
