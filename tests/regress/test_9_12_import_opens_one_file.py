# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 12: import read what it should not, or read it wrong.

Import opens exactly the file that it was told.  What names another file, and what
cannot be read right, is refused with the reason, and nothing is left behind.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import random
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archipelago import Client, UsageError
from archipelago.images.import_ import import_image
from archipelago.images.qemu import qemu_image
from tests.helpers.inprocess import BLOCK, MIB, running

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is not installed"
)

SECRET = b"another tenant's bytes" * 40


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with running(tmp_path) as instance, instance.connect() as connected:
        yield connected
        assert [v.name for v in connected.list()] in ([], ["v"])


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET.ljust(MIB, b"\0"))
    return path


def qemu_img(*arguments: str | Path) -> None:
    command = ["qemu-img", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def content(client: Client) -> bytes:
    with client.open("v", read_only=True) as volume:
        return volume.pread(volume.size, 0)


def refused(client: Client, image: Path | int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        import_image(client, image, "v", block_size=BLOCK)
    assert client.list() == []


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# ---- another file is never opened ----------------------------------------------------


def test_a_qcow2_with_a_data_file_is_refused(
    client: Client, tmp_path: Path, secret: Path
) -> None:
    image = tmp_path / "image"
    qemu_img(
        "create", "-f", "qcow2", "-o",
        f"data_file={secret},data_file_raw=on", image, "1M",
    )  # fmt: skip
    # qemu-img create wipes what it takes for its own
    secret.write_bytes(SECRET.ljust(MIB, b"\0"))
    refused(client, image, "data-file")
    # As a guest would write it to its own disk.
    disk = tmp_path / "disk"
    disk.write_bytes(image.read_bytes().ljust(8 * MIB, b"\0"))
    refused(client, disk, "data-file")
    info = import_image(client, disk, "v", block_size=BLOCK, image_format="raw")
    assert info.size == 8 * MIB
    assert content(client) == disk.read_bytes()


def test_a_backing_file_is_refused(
    client: Client, tmp_path: Path, secret: Path
) -> None:
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", secret, image)
    refused(client, image, f"overlay over {secret}")


VMDK = """{comment}# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="monolithicFlat"
RW 2048 FLAT "{secret}" 0
ddb.adapterType = "ide"
"""


def vmdk_with_a_descriptor_inside(secret: Path, capacity: int) -> bytes:
    """A VMDK whose binary header leads to a text that names another file."""
    text = VMDK.format(comment="", secret=secret).encode()
    header = struct.pack(
        "<4sIIQQQQIQQQ", b"KDMV", 1, 3, capacity, 128, 1, 20, 512, 0, 0, 0
    )
    return header.ljust(512, b"\0") + text.ljust(20 * 512, b"\0")


def test_a_vmdk_extent_that_is_another_file_is_refused(
    client: Client, tmp_path: Path, secret: Path
) -> None:
    image = tmp_path / "image"
    for comment in ("", "# a comment\n", "\n  \n# one\n# two\r\n", "#\n" * 300):
        image.write_text(VMDK.format(comment=comment, secret=secret))
        refused(client, image, "secret.*--format raw")
    text = VMDK.format(comment="", secret=secret)
    image.write_text(text.replace("# Disk DescriptorFile\n", "#x\n"))
    refused(client, image, "opens no other file")
    image.write_bytes(vmdk_with_a_descriptor_inside(secret, 0))
    refused(client, image, "opens no other file")
    for subformat in ("monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"):
        other = tmp_path / "made.vmdk"
        qemu_img("create", "-f", "vmdk", "-o", f"subformat={subformat}", other, "1M")
        refused(client, other, "opens no other file")
    refused(client, tmp_path / "made-s001.vmdk", "one part of a VMDK")


def test_a_vmdk_over_another_is_refused(client: Client, tmp_path: Path) -> None:
    base, image = tmp_path / "base.vmdk", tmp_path / "image.vmdk"
    qemu_img("create", "-f", "vmdk", base, "1M")
    qemu_img("create", "-f", "vmdk", "-F", "vmdk", "-b", base, image)
    refused(client, image, "overlay over .*base.vmdk")


def test_a_header_changed_behind_our_back_opens_nothing(
    tmp_path: Path, secret: Path
) -> None:
    """The check of the header cannot see what QEMU sees later; this one can."""
    flat, inside, overlay = (tmp_path / name for name in ("flat", "inside", "over"))
    flat.write_text(VMDK.format(comment="", secret=secret))
    inside.write_bytes(vmdk_with_a_descriptor_inside(secret, 0))
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", secret, overlay)
    data = tmp_path / "data"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={secret}", data, "1M")
    for image, driver in ((flat, "vmdk"), (inside, "vmdk"), (data, "qcow2")):
        fd = os.open(image, os.O_RDONLY)
        with pytest.raises(UsageError, match=r"names another file|cannot read"):
            with qemu_image(fd, "it", driver):
                pass
        os.close(fd)
    fd = os.open(overlay, os.O_RDONLY)
    with qemu_image(fd, "it", "qcow2") as served:
        block = bytearray(4096)
        served.read_into(memoryview(block), 0)
        assert block == bytes(4096)
    os.close(fd)


def test_a_name_is_only_a_name(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").write_bytes(noise(MIB))
    monkeypatch.chdir(tmp_path)
    qemu_img("convert", "-O", "qcow2", "-f", "raw", "raw", "made")
    for name in ("a:b.qcow2", "nbd:unix:x", "json:{}", "-n", "o=1,x=2", "#"):
        shutil.copy("made", name)
        import_image(client, name, "v", block_size=BLOCK)
        assert content(client) == noise(MIB)
        client.remove("v")


# ---- what is not raw is not taken for raw --------------------------------------------

HEADS = {
    "qcow": b"QFI\xfb\0\0\0\1",
    "qcow2": b"QFI\xfb\0\0\0\3",
    "qed": b"QED\0",
    "parallels": b"WithoutFreeSpace",
    "parallels-ext": b"WithouFreSpacExt",
    "luks": b"LUKS\xba\xbe\0\1",
    "vmdk": b"KDMV\1",
    "vmdk3": b"COWD\1",
    "vmdk-text": b"#!/usr/bin/vmware\n# comment\nversion = 1\n",
    "vmdk-type": b'# comment\nencoding="UTF-8"\ncreateType="custom"\n',
    "vhdx": b"vhdxfile",
    "vhd": b"conectix",
    "vdi": bytes(64) + b"\x7f\x10\xda\xbe",
    "bochs": b"Bochs Virtual HD Image",
    "cloop": b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0",
    "android": b"\x3a\xff\x26\xed",
    "wim": b"MSWIM\0\0\0",
    "ewf": b"EVF\x09\x0d\x0a\xff\0",
    "zip": b"PK\3\4",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "lz4": b"\x04\x22\x4d\x18",
    "ova": b"box.ovf".ljust(257, b"\0") + b"ustar",
}
TAILS = {"vhd": b"conectix".ljust(512, b"\0"), "dmg": b"koly\0\0\0\4".ljust(512, b"\0")}


def images() -> Iterator[tuple[str, bytes]]:
    for name, head in HEADS.items():
        yield name, head.ljust(3 * BLOCK, b"\0")
    for name, tail in TAILS.items():
        yield f"{name}-at-the-end", bytes(2 * BLOCK) + tail


@pytest.mark.parametrize(
    ("kind", "raw"), list(images()), ids=[kind for kind, _ in images()]
)
def test_a_known_container_is_never_taken_for_raw(
    client: Client, tmp_path: Path, kind: str, raw: bytes
) -> None:
    image, fifo = tmp_path / "image", tmp_path / "fifo"
    image.write_bytes(raw)
    with pytest.raises(UsageError):
        import_image(client, image, "v", block_size=BLOCK)
    os.mkfifo(fifo)
    with feeding(fifo, raw), pytest.raises(UsageError, match="--format raw"):
        import_image(client, fifo, "v", block_size=BLOCK)
    packed = tmp_path / "image.gz"
    packed.write_bytes(gzip.compress(raw))
    with pytest.raises(UsageError, match=r"what .* holds"):
        import_image(client, packed, "v", block_size=BLOCK)
    assert client.list() == []
    import_image(client, image, "v", block_size=BLOCK, image_format="raw")
    assert content(client) == raw


class feeding:
    """Write to a pipe in a thread; the reader may leave early."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._thread = threading.Thread(target=self._feed, args=(path, data))

    @staticmethod
    def _feed(path: Path, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            path.write_bytes(data)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()


@pytest.mark.parametrize("image_format", ["qcow", "qed", "parallels"])
def test_formats_that_qemu_made_and_import_does_not_read(
    client: Client, tmp_path: Path, image_format: str
) -> None:
    image = tmp_path / "image"
    qemu_img("create", "-f", image_format, image, "1M")
    refused(client, image, "does not read")


def test_a_format_that_the_image_has_not_is_refused(
    client: Client, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(noise(MIB))
    for image_format, why in (("qcow2", "looks like a raw image"), ("qed", "choose")):
        with pytest.raises(UsageError, match=why):
            import_image(client, image, "v", image_format=image_format)
    qemu_img("create", "-f", "vdi", image, "1M")
    with pytest.raises(UsageError, match="looks like a VDI image"):
        import_image(client, image, "v", image_format="vmdk")


def test_a_fixed_vhd_is_read_without_its_footer(client: Client, tmp_path: Path) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(noise(4 * MIB))
    qemu_img(
        "convert", "-f", "raw", "-O", "vpc", "-o",
        "subformat=fixed,force_size=on", raw, image,
    )  # fmt: skip
    import_image(client, image, "v", block_size=BLOCK, image_format="vhd")
    assert content(client) == noise(4 * MIB)


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"),
    reason="loop devices need root",
)
def test_a_qcow2_on_a_block_device_is_read_right(
    client: Client, tmp_path: Path
) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(noise(3 * MIB))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    attach = ["losetup", "--find", "--show", "--read-only", str(image)]
    attached = subprocess.run(attach, capture_output=True, text=True)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr}")
    device = attached.stdout.strip()
    try:
        import_image(client, device, "v", block_size=BLOCK)
        assert content(client) == noise(3 * MIB)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


# ---- what cannot be read right -------------------------------------------------------


def test_an_encrypted_qcow2_is_said_to_be_encrypted(
    client: Client, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, "1M")
    raw = bytearray(image.read_bytes())
    raw[32:36] = struct.pack(">I", 2)  # crypt_method: LUKS
    image.write_bytes(raw)
    refused(client, image, "is encrypted")


@pytest.mark.parametrize(
    ("bit", "why"),
    [(0, "was not closed well"), (1, "marked as corrupt"), (40, "not known")],
)
def test_a_qcow2_that_needs_care_says_so(
    client: Client, tmp_path: Path, bit: int, why: str
) -> None:
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "1M")
    raw = bytearray(image.read_bytes())
    raw[72:80] = struct.pack(">Q", 1 << bit)
    image.write_bytes(raw)
    refused(client, image, why)


def test_lazy_refcounts_that_were_closed_well_are_fine(
    client: Client, tmp_path: Path
) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(noise(MIB))
    qemu_img(
        "convert", "-f", "raw", "-O", "qcow2", "-o", "lazy_refcounts=on", raw, image
    )
    import_image(client, image, "v", block_size=BLOCK)
    assert content(client) == noise(MIB)


@pytest.mark.parametrize(
    ("image_format", "option"),
    [("vdi", "static=off"), ("vdi", "static=on"), ("vpc", "subformat=dynamic"),
     ("vmdk", "subformat=streamOptimized"), ("qcow2", "compat=0.10")],
)  # fmt: skip
def test_a_truncated_image_is_refused(
    client: Client, tmp_path: Path, image_format: str, option: str
) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(noise(8 * MIB))
    qemu_img("convert", "-f", "raw", "-O", image_format, "-o", option, raw, image)
    os.truncate(image, image.stat().st_size - MIB - 512)
    with pytest.raises(UsageError, match=r"damaged|QEMU cannot read"):
        import_image(client, image, "v", block_size=BLOCK)
    assert client.list() == []


# ---- packed images -------------------------------------------------------------------


def zstd(raw: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=raw, stdout=-1, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": zstd,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_raw_images_are_unpacked(
    client: Client, tmp_path: Path, packer: str
) -> None:
    if packer == "zst" and shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    pack = PACKERS[packer]
    raw = noise(3 * BLOCK) + bytes(4 * BLOCK) + noise(BLOCK + 17)
    image, fifo = tmp_path / "image", tmp_path / "fifo"
    # Two members, as parallel packers write them.
    image.write_bytes(pack(raw[:BLOCK]) + pack(raw[BLOCK:]))
    seen: list[tuple[int, int | None]] = []
    info = import_image(
        client, image, "v", block_size=BLOCK, progress=lambda *at: seen.append(at)
    )
    assert (info.size, seen[-1]) == (len(raw), (len(raw), len(raw)))
    assert content(client) == raw
    client.remove("v")
    os.mkfifo(fifo)
    with feeding(fifo, image.read_bytes()):
        import_image(client, fifo, "v", block_size=BLOCK)
    assert content(client) == raw
    client.remove("v")
    os.truncate(image, image.stat().st_size - 100)
    refused(client, image, "damaged or was not copied whole")
    image.write_bytes(pack(raw)[:BLOCK] + bytes(BLOCK))
    refused(client, image, "damaged or was not copied whole")


def test_a_packed_file_may_be_taken_as_it_is(client: Client, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(gzip.compress(noise(MIB)))
    import_image(client, image, "v", block_size=BLOCK, image_format="raw")
    assert content(client) == image.read_bytes()


# ---- no raw copy ---------------------------------------------------------------------


def test_an_image_larger_than_any_file_is_imported(
    client: Client, tmp_path: Path
) -> None:
    size = 100 << 40  # ext4 has files of 16 TiB at most
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=2M", image, str(size))
    write = f"write -P 7 {size - MIB} 64k"
    subprocess.run(["qemu-io", "-c", write, str(image)], check=True, stdout=-3)
    info = import_image(client, image, "v")
    assert info.size == size
    with client.open("v") as volume:
        assert volume.pread(MIB, size - MIB) == b"\7" * BLOCK + bytes(MIB - BLOCK)
