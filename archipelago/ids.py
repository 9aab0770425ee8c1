# SPDX-License-Identifier: Apache-2.0
"""Names: of volumes for people, of stored objects for peers.

The bytes of an `ObjectId` are those of ``struct xseg_object`` (``xseg/request.h``).
"""

from __future__ import annotations

import hashlib
import unicodedata
import uuid as _uuid
from dataclasses import dataclass
from typing import NewType

from archipelago.errors import UsageError
from xseg.constants import ObjectKind

#: Longest name of a volume [bytes of UTF-8].
NAME_MAX_BYTES = 255

#: The SHA-256 of a content block, 32 bytes.
BlockId = NewType("BlockId", bytes)

#: A name that `check_name` has accepted.
VolumeName = NewType("VolumeName", str)


def check_name(name: str) -> VolumeName:
    """Accept a name for a volume or snapshot, or say what is wrong with it.

    A name has 1 to 255 bytes of UTF-8, no control character, no "/", does not
    start with "-" and is neither "." nor "..".  It is not normalised: two
    spellings of one letter are two names.

    Raises:
        UsageError: for any other name.
    """
    if not isinstance(name, str):
        raise UsageError(f"a volume's name is text, not {type(name).__name__}")
    if not name:
        raise UsageError("a volume's name cannot be empty: choose 1 to 255 bytes")
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name {name!a} is not valid UTF-8") from None
    if len(raw) > NAME_MAX_BYTES:
        raise UsageError(
            f'the name "{name[:32]}..." has {len(raw)} bytes: at most '
            f"{NAME_MAX_BYTES} are allowed"
        )
    if name in (".", ".."):
        raise UsageError(f'"{name}" cannot name a volume: choose another name')
    if name.startswith("-"):
        raise UsageError(
            f'the name {name!a} starts with "-" and would look like an option: '
            "choose another name"
        )
    for char in name:
        if char == "/" or unicodedata.category(char) == "Cc":
            raise UsageError(f"the name {name!a} contains {char!a}: leave it out")
    return VolumeName(name)


@dataclass(frozen=True)
class ObjectId:
    """The name of one stored object: its kind and 32 bytes."""

    kind: ObjectKind
    id: bytes

    def __str__(self) -> str:
        label = self.kind.name.lower()
        if self.kind is ObjectKind.CONTENT or self.kind is ObjectKind.HEADER:
            return f"{label} {self.id.hex()[:16]}"
        owner = _uuid.UUID(bytes=self.id[:16])
        if self.kind is ObjectKind.EXTENT or self.kind is ObjectKind.JOURNAL:
            return f"{label} {owner}/{int.from_bytes(self.id[16:24], 'little')}"
        return f"{label} {owner}"


def header_id(name: str) -> ObjectId:
    """Name the header object of the map called `name`."""
    return ObjectId(ObjectKind.HEADER, hashlib.sha256(name.encode()).digest())


def _numbered(kind: ObjectKind, uuid: bytes, number: int) -> ObjectId:
    return ObjectId(kind, uuid + number.to_bytes(8, "little") + bytes(8))


def extent_id(uuid: bytes, epoch: int) -> ObjectId:
    """Name the private extent of volume `uuid` in `epoch`."""
    return _numbered(ObjectKind.EXTENT, uuid, epoch)


def journal_id(uuid: bytes, number: int) -> ObjectId:
    """Name journal `number` of volume `uuid`."""
    return _numbered(ObjectKind.JOURNAL, uuid, number)


def layer_id(uuid: bytes) -> ObjectId:
    """Name the layer `uuid`."""
    return ObjectId(ObjectKind.LAYER, uuid + bytes(16))


def lease_id(uuid: bytes) -> ObjectId:
    """Name the lease of volume `uuid`."""
    return ObjectId(ObjectKind.LEASE, uuid + bytes(16))


def presence_id(uuid: bytes) -> ObjectId:
    """Name the presence of instance `uuid`."""
    return ObjectId(ObjectKind.PRESENCE, uuid + bytes(16))


def content_id(digest: BlockId) -> ObjectId:
    """Name a content block."""
    return ObjectId(ObjectKind.CONTENT, digest)


def new_uuid() -> bytes:
    """Make a fresh random uuid (RFC 9562 version 4), 16 bytes."""
    return _uuid.uuid4().bytes


def uuid_text(uuid: bytes) -> str:
    """Write a uuid in its 36 characters."""
    return str(_uuid.UUID(bytes=uuid))


def parse_uuid(text: str) -> bytes:
    """Read a uuid of 36 characters.

    Raises:
        UsageError: if it is none.
    """
    try:
        return _uuid.UUID(text).bytes
    except (ValueError, AttributeError, TypeError):
        raise UsageError(f"{text!a} is not a uuid") from None
