# SPDX-License-Identifier: Apache-2.0
"""Records that requests carry, as dataclasses that pack and unpack.

Byte for byte the structs of payload.h (little endian, no hidden padding); a test
compares the sizes with the C compiler's.  `unpack` validates: the bytes come from
another peer.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Any, ClassVar

from xseg.constants import (
    NAME_MAX,
    OBJECT_ID_BYTES,
    LeaseFlag,
    ObjectKind,
    Reference,
    RunFlag,
    UserFlag,
    VolumeFlag,
)
from xseg.errors import DataCorrupt

__all__ = [
    "Failure",
    "JournalInfo",
    "Lease",
    "ListEntry",
    "MapInfo",
    "ObjectInfo",
    "ObjectName",
    "Presence",
    "Run",
    "Versioned",
    "VolumeInfo",
    "VolumeUser",
    "unpack_list_entries",
    "unpack_runs",
    "unpack_volumes",
]

Bytes = bytes | bytearray | memoryview

_NO_RUN_FLAGS = RunFlag(0)
_NO_LEASE_FLAGS = LeaseFlag(0)


def _take(layout: struct.Struct, data: Bytes, what: str) -> tuple[Any, ...]:
    if len(data) < layout.size:
        raise _damaged(f"{what}: {len(data)} bytes where {layout.size} are needed")
    return layout.unpack_from(data)


def _damaged(text: str) -> DataCorrupt:
    return DataCorrupt(errno.EBADMSG, text)


def _text(raw: bytes, what: str) -> str:
    """Decode a NUL-padded field."""
    try:
        return raw.split(b"\0", 1)[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(f"{what}: not UTF-8") from error


def _field(text: str, size: int, what: str) -> bytes:
    """Encode text for a NUL-padded field of `size` bytes."""
    raw = text.encode("utf-8")
    if len(raw) >= size or b"\0" in raw:
        raise ValueError(f"{what} takes at most {size - 1} bytes without NUL: {text!r}")
    return raw


def _exactly(raw: bytes, size: int, what: str) -> bytes:
    if len(raw) != size:
        raise ValueError(f"{what} takes {size} bytes, not {len(raw)}")
    return bytes(raw)


@dataclass(frozen=True, slots=True)
class ObjectName:
    """Names one stored object (`struct xseg_object`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<II32s")

    kind: ObjectKind
    id: bytes
    """32 bytes; unused ones are zero."""

    def pack(self) -> bytes:
        """Return the bytes of the C struct."""
        ident = _exactly(self.id, OBJECT_ID_BYTES, "an object id")
        return self.LAYOUT.pack(self.kind, 0, ident)

    @classmethod
    def unpack(cls, data: Bytes) -> ObjectName:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short, or an unknown kind.
        """
        kind, _, ident = _take(cls.LAYOUT, data, "object name")
        if kind not in ObjectKind._value2member_map_:
            raise _damaged(f"object name: unknown kind {kind}")
        return cls(ObjectKind(kind), ident)


@dataclass(frozen=True, slots=True)
class Run:
    """Sectors of a volume with one source (`struct xseg_run`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQIIQ32s")

    offset: int
    """In the volume, sector aligned [bytes]."""
    size: int
    """Whole sectors [bytes]."""
    kind: Reference
    flags: RunFlag = _NO_RUN_FLAGS
    object_off: int = 0
    """Where the run starts in its object [bytes]; 0 for ZERO."""
    id: bytes = bytes(OBJECT_ID_BYTES)
    """Of the object; zeros for ZERO."""

    def pack(self) -> bytes:
        """Return the bytes of the C struct."""
        return self.LAYOUT.pack(
            self.offset,
            self.size,
            self.kind,
            self.flags,
            self.object_off,
            _exactly(self.id, OBJECT_ID_BYTES, "an object id"),
        )

    @classmethod
    def unpack(cls, data: Bytes) -> Run:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short, or an unknown kind of reference.
        """
        offset, size, kind, flags, object_off, ident = _take(cls.LAYOUT, data, "run")
        if kind not in Reference._value2member_map_:
            raise _damaged(f"run: unknown kind of reference {kind}")
        return cls(offset, size, Reference(kind), RunFlag(flags), object_off, ident)


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """An open volume (`struct xseg_volume_info`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<16sQQQQIIIIB255s")

    uuid: bytes
    size_bytes: int
    epoch: int
    """Writes go to the extent (uuid, epoch)."""
    fence: int
    map_handle: int
    """The mapper's handle; 0 if the volume is not open there."""
    block_bytes: int
    flags: VolumeFlag
    users: int
    """Opens that count."""
    name: str
    inline_valid: bool = True
    """False: a reply without the record; nothing else is filled."""

    def pack(self) -> bytes:
        """Return the bytes of the C struct.

        Raises:
            ValueError: The name is longer than `NAME_MAX`, or the uuid not 16 bytes.
        """
        name = self.name.encode("utf-8")
        if len(name) > NAME_MAX:
            raise ValueError(f"a name takes at most {NAME_MAX} bytes, not {len(name)}")
        return self.LAYOUT.pack(
            _exactly(self.uuid, 16, "a uuid"),
            self.size_bytes,
            self.epoch,
            self.fence,
            self.map_handle,
            self.block_bytes,
            self.flags,
            self.users,
            self.inline_valid,
            len(name),
            name,
        )

    @classmethod
    def unpack(cls, data: Bytes) -> VolumeInfo:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short, or a name that is not UTF-8.
        """
        (
            uuid,
            size_bytes,
            epoch,
            fence,
            map_handle,
            block_bytes,
            flags,
            users,
            inline_valid,
            name_len,
            name,
        ) = _take(cls.LAYOUT, data, "volume info")
        try:
            text = name[:name_len].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _damaged("volume info: the name is not UTF-8") from error
        return cls(
            uuid,
            size_bytes,
            epoch,
            fence,
            map_handle,
            block_bytes,
            VolumeFlag(flags),
            users,
            text,
            inline_valid != 0,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why control refused an OPEN or CLOSE (`struct xseg_failure`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QHH324s")
    MAGIC: ClassVar[int] = 0x6572756C69616658

    msgid: str
    message: str
    """Cut to fit where it is packed."""

    def pack(self) -> bytes:
        """Return the bytes of the C struct."""
        msgid = self.msgid.encode()
        room = self.LAYOUT.size - 12 - len(msgid)
        # A character that is cut in two is left out whole.
        message = self.message.encode()[:room].decode("utf-8", "ignore").encode()
        return self.LAYOUT.pack(self.MAGIC, len(msgid), len(message), msgid + message)

    @classmethod
    def unpack(cls, data: Bytes) -> Failure | None:
        """Read the C struct; None if nothing is said."""
        magic, msgid_len, message_len, text = _take(cls.LAYOUT, data, "failure")
        if magic != cls.MAGIC or msgid_len + message_len > len(text):
            return None
        message = text[msgid_len : msgid_len + message_len]
        return cls(
            text[:msgid_len].decode("utf-8", "replace"),
            message.decode("utf-8", "replace"),
        )


@dataclass(frozen=True, slots=True)
class VolumeUser:
    """What uses an open volume (`struct xseg_volume_user`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QIIII64s")

    since_ns: int
    """CLOCK_REALTIME."""
    pid: int
    """0: not known, or none."""
    flags: UserFlag
    port: int
    """Through which it was opened; 0: none."""
    text: str
    """For people: "nbd", "client"."""

    @classmethod
    def unpack(cls, data: Bytes) -> VolumeUser:
        """Read the C struct; text that is not UTF-8 is shown with replacements."""
        since_ns, pid, flags, port, text_len, raw = _take(
            cls.LAYOUT, data, "volume user"
        )
        text = raw[:text_len].decode("utf-8", "replace")
        return cls(since_ns, pid, UserFlag(flags), port, text)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A stored object, or with kind NONE the store (`struct xseg_object_info`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQQQ16s16sII")

    size_bytes: int
    """Of the object; of NONE the capacity of the store."""
    allocated_bytes: int
    """On disk; of NONE the free bytes of the store."""
    modified_ns: int
    """Since 1970 [ns]."""
    version: int
    """HEADER and LEASE: as stored."""
    backend: str = ""
    """NONE only: "file" or "mem"."""
    engine: str = ""
    """NONE only: "io_uring" or "threads"."""
    direct: bool = False
    """NONE only: opened with O_DIRECT."""

    def pack(self) -> bytes:
        """Return the bytes of the C struct."""
        return self.LAYOUT.pack(
            self.size_bytes,
            self.allocated_bytes,
            self.modified_ns,
            self.version,
            _field(self.backend, 16, "backend"),
            _field(self.engine, 16, "engine"),
            self.direct,
            0,
        )

    @classmethod
    def unpack(cls, data: Bytes) -> ObjectInfo:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short, or text that is not UTF-8.
        """
        size, allocated, modified, version, backend, engine, direct, _ = _take(
            cls.LAYOUT, data, "object info"
        )
        return cls(
            size,
            allocated,
            modified,
            version,
            _text(backend, "object info: backend"),
            _text(engine, "object info: engine"),
            direct != 0,
        )


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One object of a listing (`struct xseg_list_entry`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<40sQQQQ")

    object: ObjectName
    size_bytes: int
    allocated_bytes: int
    modified_ns: int
    """Since 1970 [ns]."""
    version: int = 0
    """Of a header, 0 if only reading it tells; of content and layers their generation.
    """

    def pack(self) -> bytes:
        """Return the bytes of the C struct."""
        return self.LAYOUT.pack(
            self.object.pack(),
            self.size_bytes,
            self.allocated_bytes,
            self.modified_ns,
            self.version,
        )

    @classmethod
    def unpack(cls, data: Bytes) -> ListEntry:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short, or an unknown kind of object.
        """
        name, *numbers = _take(cls.LAYOUT, data, "list entry")
        return cls(ObjectName.unpack(name), *numbers)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease, as asked, granted or held (`struct xseg_lease`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQ16s16sII64s")

    fence: int = 0
    """Grows with every new holder."""
    since: int = 0
    """The fence from which on it has been this owner's alone; 0: of none."""
    owner: bytes = bytes(16)
    """Uuid of the holder's instance."""
    nonce: bytes = bytes(16)
    """Of the run that holds it; zeros: given back."""
    pid: int = 0
    flags: LeaseFlag = _NO_LEASE_FLAGS
    host: str = ""

    @property
    def is_free(self) -> bool:
        """True if no run of an instance has it."""
        return self.nonce == bytes(16)

    def pack(self) -> bytes:
        """Return the bytes of the C struct.

        Raises:
            ValueError: A text longer than its field.
        """
        return self.LAYOUT.pack(
            self.fence,
            self.since,
            _exactly(self.owner, 16, "owner"),
            _exactly(self.nonce, 16, "nonce"),
            self.pid,
            self.flags,
            _field(self.host, 64, "host"),
        )

    @classmethod
    def unpack(cls, data: Bytes) -> Lease:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short, or text that is not UTF-8.
        """
        fence, since, owner, nonce, pid, flags, raw = _take(cls.LAYOUT, data, "lease")
        host = _text(raw, "lease: host")
        return cls(fence, since, owner, nonce, pid, LeaseFlag(flags), host)


@dataclass(frozen=True, slots=True)
class Presence:
    """The heartbeat of an instance, as asked or stored (`struct xseg_presence`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<16sQQQQ16sQQII64s")

    nonce: bytes = bytes(16)
    """Names one run of the instance: its incarnation."""
    ttl_ns: int = 0
    """Its life without renewal, as asked, or what is left of it [ns]."""
    expires_ns: int = 0
    """Since 1970 [ns]; 0: given back."""
    since_ns: int = 0
    """When this run began, since 1970 [ns]."""
    generation: int = 0
    """The oldest generation that the instance still uses; 0: none is known."""
    boot_id: bytes = bytes(16)
    """Of the process with which the run ends; zeros: not known."""
    pid_ns: int = 0
    """Inode of the pid namespace in which `pid` means something; 0: not known."""
    pid_start: int = 0
    """Start time of the process [clock ticks since boot]."""
    pid: int = 0
    host: str = ""

    def pack(self) -> bytes:
        """Return the bytes of the C struct.

        Raises:
            ValueError: A text longer than its field.
        """
        return self.LAYOUT.pack(
            _exactly(self.nonce, 16, "nonce"),
            self.ttl_ns,
            self.expires_ns,
            self.since_ns,
            self.generation,
            _exactly(self.boot_id, 16, "boot_id"),
            self.pid_ns,
            self.pid_start,
            self.pid,
            0,
            _field(self.host, 64, "host"),
        )

    @classmethod
    def unpack(cls, data: Bytes) -> Presence:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short, or text that is not UTF-8.
        """
        nonce, ttl, expires, since, generation, boot_id, pid_ns, start, pid, _, host = (
            _take(cls.LAYOUT, data, "presence")
        )
        return cls(
            nonce,
            ttl,
            expires,
            since,
            generation,
            boot_id,
            pid_ns,
            start,
            pid,
            _text(host, "presence: host"),
        )


@dataclass(frozen=True, slots=True)
class JournalInfo:
    """Where a journal stands (`struct xseg_journal_info`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQQ")

    number: int
    length_bytes: int
    nr_marks: int
    """Runs recorded in it."""

    def pack(self) -> bytes:
        """Return the bytes of the C struct."""
        return self.LAYOUT.pack(self.number, self.length_bytes, self.nr_marks)

    @classmethod
    def unpack(cls, data: Bytes) -> JournalInfo:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short.
        """
        return cls(*_take(cls.LAYOUT, data, "journal info"))


@dataclass(frozen=True, slots=True)
class MapInfo:
    """The map of an open volume in memory (`struct xseg_map_info`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<24sQQQQQQ")

    journal: JournalInfo
    present_sectors: int
    """Of the current extent since its epoch began."""
    dirty_marks: int
    """Not yet flushed."""
    cached_blocks: int
    """Resolved blocks in memory."""
    pages_read: int
    """Layer pages fetched for this map."""
    stack_depth: int
    needs_checkpoint: int = 0
    """1: the journal ends in a torn record; it takes no marks until an UPDATE."""

    def pack(self) -> bytes:
        """Return the bytes of the C struct."""
        return self.LAYOUT.pack(
            self.journal.pack(),
            self.present_sectors,
            self.dirty_marks,
            self.cached_blocks,
            self.pages_read,
            self.stack_depth,
            self.needs_checkpoint,
        )

    @classmethod
    def unpack(cls, data: Bytes) -> MapInfo:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short.
        """
        journal, *counts = _take(cls.LAYOUT, data, "map info")
        return cls(JournalInfo.unpack(journal), *counts)


@dataclass(frozen=True, slots=True)
class Versioned:
    """First bytes of every stored header (`struct xseg_versioned`)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQQQ")

    magic: int
    version: int
    fence: int
    length: int
    """Of the whole object [bytes]."""

    def pack(self) -> bytes:
        """Return the bytes of the C struct."""
        return self.LAYOUT.pack(self.magic, self.version, self.fence, self.length)

    @classmethod
    def unpack(cls, data: Bytes) -> Versioned:
        """Read the C struct.

        Raises:
            DataCorrupt: Too short.
        """
        return cls(*_take(cls.LAYOUT, data, "versioned prefix"))


def unpack_runs(data: Bytes, count: int | None = None) -> list[Run]:
    """Read `count` runs laid one after another; None reads all."""
    return [Run.unpack(piece) for piece in _pieces(Run.LAYOUT, data, count)]


def unpack_object_names(data: Bytes, count: int | None = None) -> list[ObjectName]:
    """Read `count` object names laid one after another; None reads all."""
    return [ObjectName.unpack(p) for p in _pieces(ObjectName.LAYOUT, data, count)]


def unpack_list_entries(data: Bytes, count: int | None = None) -> list[ListEntry]:
    """Read `count` list entries laid one after another; None reads all."""
    return [ListEntry.unpack(p) for p in _pieces(ListEntry.LAYOUT, data, count)]


def unpack_volumes(data: Bytes, count: int | None = None) -> list[VolumeInfo]:
    """Read `count` volume records laid one after another; None reads all."""
    return [VolumeInfo.unpack(p) for p in _pieces(VolumeInfo.LAYOUT, data, count)]


def _pieces(layout: struct.Struct, data: Bytes, count: int | None) -> list[memoryview]:
    if count is None:
        count = len(data) // layout.size
    if count < 0 or len(data) // layout.size < count:
        raise _damaged(f"{count} records of {layout.size} bytes in {len(data)} bytes")
    view = memoryview(data)
    return [view[i * layout.size : (i + 1) * layout.size] for i in range(count)]
