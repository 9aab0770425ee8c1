# SPDX-License-Identifier: Apache-2.0
"""Reads the fence of a lease file (docs/format/store.md), on its own account."""

from __future__ import annotations

import struct
from functools import lru_cache

from xseg.payload import Lease

_SLOT = struct.Struct("<8sIIQQ")
_SLOT_BYTES = 512
_STRIDE = 4096
_LEASE_AT = 24


def _table() -> list[int]:
    """CRC-32C, reflected polynomial 0x82F63B78 (RFC 3720, appendix B.4)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Checksum some bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


@lru_cache(maxsize=4096)
def fence_of(data: bytes) -> int | None:
    """The newest fence of a lease file, or None if no slot of it is whole."""
    slots = [data[at : at + _SLOT_BYTES] for at in (0, _STRIDE)]
    found = [slot for slot in map(_slot, slots) if slot is not None]
    return max(found)[1] if found else None


def is_held(data: bytes) -> bool:
    """True if a lease was not given back."""
    slots = [data[at : at + _SLOT_BYTES] for at in (0, _STRIDE)]
    found = [(read, slot) for slot in slots if (read := _slot(slot)) is not None]
    newest = max(found)[1] if found else bytes(_SLOT_BYTES)
    length = Lease.LAYOUT.size
    return not Lease.unpack(newest[_LEASE_AT : _LEASE_AT + length]).is_free


def _slot(slot: bytes) -> tuple[int, int] | None:
    """Sequence and fence of one slot."""
    if len(slot) != _SLOT_BYTES:
        return None
    magic, version, crc, sequence, fence = _SLOT.unpack_from(slot)
    if magic != b"ACPLEAS1" or version != 2:
        return None
    if crc != crc32c(slot[:12] + bytes(4) + slot[16:]):
        return None
    return sequence, fence
