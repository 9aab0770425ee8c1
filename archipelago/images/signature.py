# SPDX-License-Identifier: Apache-2.0
"""What a file is, by its first and last bytes.

A guest may write any bytes to its own raw disk, so a signature is a claim, never a
permission: it decides what reads the file, and what is refused.

Sources: QEMU docs/interop/{qcow2,qed_spec,parallels}.rst and its probe functions,
VMware Virtual Disk Format 5.0, [MS-VHDX], Microsoft's VHD specification 1.0,
VirtualBox VDICore.h, RFC 1952 (gzip), RFC 8878 (zstd), xz-file-format 1.2.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

__all__ = ["FORMATS", "HEAD_BYTES", "TAIL_BYTES", "Signature", "Way", "recognise"]

#: What a caller may say that an image is.
FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vhd")
#: How much of the start and of the end of a file is looked at [bytes].
HEAD_BYTES = 4096
TAIL_BYTES = 512


class Way(Enum):
    """What import does with a file."""

    QEMU = "qemu"
    UNPACK = "unpack"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Signature:
    """One kind of file.

    Attributes:
        format: its short name, as of ``--format``.
        title: its name in a sentence, with its article.
        way: what import does with it.
        driver: QEMU's name of the format.
        cure: of what is refused, how its user gets it imported.
    """

    format: str
    title: str
    way: Way
    driver: str = ""
    cure: str = ""


def _qemu(name: str, title: str, driver: str = "") -> Signature:
    return Signature(name, title, Way.QEMU, driver or name)


def _packed(name: str, title: str) -> Signature:
    return Signature(name, title, Way.UNPACK)


def _refused(name: str, title: str, cure: str) -> Signature:
    return Signature(name, title, Way.REFUSE, cure=cure)


def _converted(name: str, title: str, driver: str = "") -> Signature:
    return _refused(
        name,
        title,
        "if you trust it, convert it to raw with "
        f'"qemu-img convert -f {driver or name} -O raw FILE RAW" and import RAW',
    )


_UNPACK = "unpack it, then import the disk image that it holds"

_VHD = _qemu("vhd", "a VHD image", "vpc")
_VMDK = _qemu("vmdk", "a VMDK image")
_DMG = _converted("dmg", "an Apple disk image", "dmg")

#: (offset, bytes, what it is); the first that fits counts.
_HEADS = (
    (0, b"QFI\xfb\0\0\0\1", _converted("qcow", "a qcow image of version 1")),
    (0, b"QFI\xfb", _qemu("qcow2", "a qcow2 image")),
    (0, b"KDMV", _VMDK),
    (0, b"COWD", _converted("cowd", "a VMDK image of version 3", "vmdk")),
    (0, b"vhdxfile", _qemu("vhdx", "a VHDX image")),
    (0, b"conectix", _VHD),
    (64, b"\x7f\x10\xda\xbe", _qemu("vdi", "a VDI image")),
    (0, b"QED\0", _converted("qed", "a QED image")),
    (0, b"WithoutFreeSpace", _converted("parallels", "a Parallels image")),
    (0, b"WithouFreSpacExt", _converted("parallels", "a Parallels image")),
    (0, b"LUKS\xba\xbe", _refused("luks", "an encrypted LUKS image", "decrypt it")),
    (0, b"Bochs Virtual HD Image", _converted("bochs", "a Bochs image")),
    (0, b"#!/bin/sh\n#V2.0 Format\n", _converted("cloop", "a cloop image")),
    (
        0,
        b"\x3a\xff\x26\xed",
        _refused("simg", "an Android sparse image", 'unpack it with "simg2img"'),
    ),
    (0, b"MSWIM\0\0\0", _refused("wim", "a WIM archive", _UNPACK)),
    (0, b"EVF\x09\x0d\x0a\xff\0", _refused("ewf", "an EWF image", _UNPACK)),
    (0, b"PK\3\4", _refused("zip", "a ZIP archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", _refused("7z", "a 7z archive", _UNPACK)),
    (0, b"\x04\x22\x4d\x18", _refused("lz4", "an lz4 file", _UNPACK)),
    (257, b"ustar", _refused("tar", "a tar archive, such as an OVA", _UNPACK)),
    (0, b"\x1f\x8b\x08", _packed("gz", "a gzip file")),
    (0, b"\xfd7zXZ\0", _packed("xz", "an xz file")),
    (0, b"\x28\xb5\x2f\xfd", _packed("zst", "a zstd file")),
)
_BZIP2 = _packed("bz2", "a bzip2 file")
#: "BZh", a level, then the magic of a block or of the end of a stream.
_BZIP2_HEAD = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
#: A VMDK's descriptor is text, in which comments may come first.
_DESCRIPTOR = re.compile(
    rb"\A(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*version[ \t]*=[ \t]*\d"
    rb"|^#[ \t]*Disk[ \t]*DescriptorFile"
    rb"|^[ \t]*createType[ \t]*=",
    re.IGNORECASE | re.MULTILINE,
)
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{8}")


def recognise(head: bytes, tail: bytes) -> Signature | None:
    """Say what a file claims to be.

    Args:
        head: its first `HEAD_BYTES`, or all of it.
        tail: its last `TAIL_BYTES`; empty while they are not known.

    Returns:
        None for a raw image.
    """
    for offset, magic, signature in _HEADS:
        if head[offset : offset + len(magic)] == magic:
            return signature
    if _BZIP2_HEAD.match(head):
        return _BZIP2
    if _TEXT.match(head) and _DESCRIPTOR.search(head.split(b"\0", 1)[0]):
        return _VMDK
    if tail[:8] == b"conectix" or tail[1:9] == b"conectix":
        return _VHD
    if tail[:8] == b"koly\0\0\0\4":
        return _DMG
    return None
