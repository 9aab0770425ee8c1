# SPDX-License-Identifier: Apache-2.0
"""Headers of image formats, read by ourselves before QEMU sees the file.

QEMU follows what a header names: a backing file, a data file, extents.  A guest can
write such a header, so an image that names another file is refused here.  So is an
image that QEMU would read wrong, or of which it would give a riddle as the reason.

Sources: QEMU docs/interop/qcow2.rst, VMware Virtual Disk Format 5.0, Microsoft's VHD
specification 1.0, VirtualBox VDICore.h.
"""

from __future__ import annotations

import os
import re
import struct
from array import array
from collections.abc import Callable

from archipelago.errors import UsageError

__all__ = ["check_container"]

#: Longest name in a qcow2 header, longest descriptor of a VMDK [bytes].
_NAME_BYTES = 1023
_DESCRIPTOR_BYTES = 1 << 20
#: How much of a VDI's table is read at once [bytes].
_TABLE_BYTES = 1 << 20


class _File:
    """A container that is looked at.

    Args:
        fd: open file or block device; stays the caller's.
        size: [bytes].
        name: for messages.
    """

    def __init__(self, fd: int, size: int, name: str) -> None:
        self._fd = fd
        self.size = size
        self.name = name

    def read(self, offset: int, size: int) -> bytes:
        """Read up to so much; behind the end there is nothing."""
        if offset >= self.size or offset < 0:
            return b""
        return os.pread(self._fd, size, offset)

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        """Read the numbers of a header."""
        length = struct.calcsize(layout)
        raw = self.read(offset, length)
        if len(raw) < length:
            raise self.cut_off()
        return struct.unpack(layout, raw)

    def refused(self, why: str) -> UsageError:
        """The error for an image that cannot be read right."""
        return UsageError(f"{self.name} {why}")

    def cut_off(self) -> UsageError:
        """The error for an image that is shorter than its header says."""
        return self.refused("is damaged or was not copied whole: get it again")

    def overlay(self, over: str) -> UsageError:
        """The error for an image that is nothing without another."""
        return self.refused(
            f"is an overlay over {over}, and import opens no other file: if you trust "
            f'both, make one file of them with "qemu-img convert -O raw '
            f"'{self.name}' RAW\" and import RAW"
        )


def check_container(fd: int, size: int, name: str, format_name: str) -> None:
    """Refuse an image that names another file, or cannot be read right.

    Args:
        fd: the image.
        size: of the file [bytes].
        name: of the file, for messages.
        format_name: as of `Signature.format`.

    Raises:
        UsageError: with the reason.
    """
    check = _CHECKS.get(format_name)
    if check is not None:
        check(_File(fd, size, name))


def _text(raw: bytes) -> str:
    """Bytes of a header as a message may show them."""
    shown = raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in shown) or "another file"


# ---- qcow2 ---------------------------------------------------------------------------

_QCOW2_DIRTY, _QCOW2_CORRUPT, _QCOW2_DATA_FILE = 1, 2, 4
#: Incompatible features that QEMU knows: these, compression and extended entries.
_QCOW2_KNOWN = 31


def _check_qcow2(file: _File) -> None:
    version, backing, length = file.unpack(">IQI", 4)
    (crypt,) = file.unpack(">I", 32)
    features = file.unpack(">Q", 72)[0] if version >= 3 else 0
    if backing:
        raise file.overlay(_text(file.read(backing, min(length, _NAME_BYTES))))
    if features & _QCOW2_DATA_FILE:
        raise file.refused(
            "keeps its data in another file (data-file), and import opens no other "
            "file: if you trust both, make one file of them with "
            f"\"qemu-img convert -O raw '{file.name}' RAW\" and import RAW"
        )
    if crypt:
        raise file.refused(
            "is encrypted: decrypt it first with qemu-img convert and its secret"
        )
    if features & _QCOW2_CORRUPT:
        raise file.refused(
            "is marked as corrupt: mend it with "
            f"\"qemu-img check -r all '{file.name}'\", or get it again"
        )
    if features & _QCOW2_DIRTY:
        raise file.refused(
            "is in use or was not closed well (its dirty bit is set, as lazy "
            "refcounts leave it after a crash): stop what uses it, or mend it with "
            f"\"qemu-img check -r all '{file.name}'\""
        )
    if features & ~_QCOW2_KNOWN:
        raise file.refused(f"needs features that are not known ({features:#x})")


# ---- VMDK ----------------------------------------------------------------------------

_EXTENT = re.compile(
    rb'^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]+\d+[ \t]+(\w+)(?:[ \t]+"([^"\n]*)")?',
    re.MULTILINE | re.IGNORECASE,
)
_PARENT = re.compile(
    rb'^[ \t]*parentFileNameHint[ \t]*=[ \t]*"?([^"\r\n]*)',
    re.MULTILINE | re.IGNORECASE,
)
_PARENT_CID = re.compile(
    rb"^[ \t]*parentCID[ \t]*=[ \t]*([0-9a-f]+)", re.MULTILINE | re.IGNORECASE
)
_NO_PARENT = 0xFFFFFFFF


def _check_vmdk(file: _File) -> None:
    if file.read(0, 4) != b"KDMV":
        raise _vmdk_of_parts(file, file.read(0, _DESCRIPTOR_BYTES))
    capacity, _, start, sectors = file.unpack("<QQQQ", 12)
    descriptor = file.read(start * 512, min(sectors * 512, _DESCRIPTOR_BYTES))
    descriptor = descriptor.split(b"\0", 1)[0]
    parts = _EXTENT.findall(descriptor)
    if start == 0 or not descriptor:
        raise file.refused(
            "is one part of a VMDK image, without the descriptor that names the others"
        )
    # Without a capacity QEMU reads the descriptor instead, and follows it.
    if capacity == 0 or len(parts) != 1:
        raise _vmdk_of_parts(file, descriptor)
    parent = _PARENT.search(descriptor)
    cid = _PARENT_CID.search(descriptor)
    if parent or (cid and int(cid[1], 16) != _NO_PARENT):
        raise file.overlay(_text(parent[1]) if parent else "another image")


def _vmdk_of_parts(file: _File, descriptor: bytes) -> UsageError:
    """The error for a descriptor whose data lies in other files."""
    parts = _EXTENT.findall(descriptor)
    names = ", ".join(_text(name) for _, name in parts[:3] if name) or "none"
    more = ", ..." if len(parts) > 3 else ""
    if len(parts) == 1 and parts[0][0].upper() in (b"FLAT", b"VMFS"):
        cure = f"import {names} with --format raw"
    else:
        cure = (
            "if you trust all of them, make one file of them with "
            f"\"qemu-img convert -O raw '{file.name}' RAW\" and import RAW"
        )
    return file.refused(
        f"only names the files that hold its data ({names}{more}), and import opens "
        f"no other file: {cure}"
    )


# ---- VDI -----------------------------------------------------------------------------

#: Entries of the table from here on stand for no block.
_VDI_NO_BLOCK = 0xFFFFFFFE


def _check_vdi(file: _File) -> None:
    """Find the last block: QEMU reads zeros behind the end of a file."""
    table, data = file.unpack("<II", 340)
    block_bytes, extra_bytes, blocks = file.unpack("<III", 376)
    if any(file.unpack("<32B", 424)):
        raise file.overlay("another image")
    last = -1
    for offset in range(table, table + 4 * blocks, _TABLE_BYTES):
        length = min(_TABLE_BYTES, table + 4 * blocks - offset)
        raw = file.read(offset, length)
        if len(raw) < length:
            raise file.cut_off()
        entries = array("I", raw)
        last = max(last, max((n for n in entries if n < _VDI_NO_BLOCK), default=-1))
    if data + (last + 1) * (block_bytes + extra_bytes) > file.size:
        raise file.cut_off()


# ---- VHD -----------------------------------------------------------------------------

_VHD_FIXED, _VHD_DYNAMIC, _VHD_DIFFERENCING = 2, 3, 4


def _check_vhd(file: _File) -> None:
    footer = file.size - 512
    if file.read(footer, 8) != b"conectix":
        raise file.cut_off()
    (kind,) = file.unpack(">I", footer + 60)
    if kind == _VHD_DIFFERENCING:
        raise file.overlay("another image")
    if kind not in (_VHD_FIXED, _VHD_DYNAMIC):
        raise file.refused(f"is a VHD image of an unknown type ({kind})")
    (size,) = file.unpack(">Q", footer + 48)
    if kind == _VHD_FIXED and size > footer:
        raise file.cut_off()


_CHECKS: dict[str, Callable[[_File], None]] = {
    "qcow2": _check_qcow2,
    "vmdk": _check_vmdk,
    "vdi": _check_vdi,
    "vhd": _check_vhd,
}
