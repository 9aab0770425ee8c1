# SPDX-License-Identifier: Apache-2.0
"""Import and export of disk images."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

import archipelago
from archipelago import Client
from archipelago.images.export import export_volume
from archipelago.images.import_ import import_image
from tests.helpers.inprocess import BLOCK, MIB, Running
from xseg.constants import ObjectKind, Reference

requires_qemu = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is not installed"
)


def sparse_image(path: Path, seed: int = 1) -> bytes:
    """A file with data, zeros, holes, a repeated block and an odd end."""
    rng = random.Random(seed)
    block = rng.randbytes(BLOCK)
    pieces = {
        0: rng.randbytes(3 * BLOCK + 17),
        5 * BLOCK: block,
        9 * BLOCK: block,
        12 * BLOCK: bytes(2 * BLOCK),
        40 * BLOCK + 100: b"late",
        50 * BLOCK: b"tail" + bytes(300),
    }
    size = 60 * BLOCK + 123
    content = bytearray(size)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in pieces.items():
            file.seek(offset)
            file.write(piece)
            content[offset : offset + len(piece)] = piece
    return bytes(content)


def content(client: Client, name: str) -> bytes:
    with client.open(name, read_only=True) as volume:
        return volume.pread(volume.size, 0)


def contents(instance: Running) -> int:
    return sum(1 for _ in instance.ctx.store.list(ObjectKind.CONTENT))


def test_a_raw_image_becomes_a_snapshot_of_content_blocks(
    instance: Running, client: Client, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    expected = sparse_image(image)
    seen: list[tuple[int, int | None]] = []
    info = import_image(
        client,
        image,
        "golden",
        block_size=BLOCK,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (info.kind, info.size, info.read_only) == ("snapshot", len(expected), True)
    assert content(client, "golden") == expected
    assert seen[-1] == (len(expected), len(expected))
    # 4 of the start, one for two equal blocks, "late" and "tail"
    assert contents(instance) == 7
    assert client.info("golden").shared_bytes == 8 * BLOCK
    with client.open("golden") as volume:
        kinds = [run.kind for run in volume.extents()]
    assert kinds[:3] == [Reference.CONTENT] * 3
    assert Reference.ZERO in kinds


def test_blocks_that_are_stored_already_are_found(
    instance: Running, client: Client, tmp_path: Path
) -> None:
    sparse_image(tmp_path / "image")
    import_image(client, tmp_path / "image", "one", block_size=BLOCK)
    stored = contents(instance)
    used = client.df().content_bytes
    import_image(client, tmp_path / "image", "two", block_size=BLOCK, volume=True)
    assert contents(instance) == stored
    assert client.df().content_bytes == used
    assert content(client, "one") == content(client, "two")
    client.remove("one")
    client.wait_reclaimed()
    assert content(client, "two") == (tmp_path / "image").read_bytes()


def test_an_imported_volume_is_writable_and_its_source_is_not_touched(
    client: Client, tmp_path: Path
) -> None:
    expected = bytearray(sparse_image(tmp_path / "image"))
    info = import_image(client, tmp_path / "image", "v", volume=True, block_size=BLOCK)
    assert info.kind == "volume"
    with client.open("v") as volume:
        volume.pwrite(b"changed", 5 * BLOCK + 1)
    expected[5 * BLOCK + 1 : 5 * BLOCK + 8] = b"changed"
    assert content(client, "v") == expected


def test_clones_of_an_imported_image(client: Client, tmp_path: Path) -> None:
    expected = sparse_image(tmp_path / "image")
    import_image(client, tmp_path / "image", "golden", block_size=BLOCK)
    assert client.clone("golden", [f"c{i}" for i in range(20)]).failed == {}
    client.remove("golden")
    client.wait_reclaimed()
    assert content(client, "c13") == expected


def test_a_stream_is_imported_to_its_end(client: Client, tmp_path: Path) -> None:
    expected = sparse_image(tmp_path / "image")
    with subprocess.Popen(
        ["cat", str(tmp_path / "image")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        seen: list[int | None] = []
        info = import_image(
            client,
            process.stdout.fileno(),
            "golden",
            block_size=BLOCK,
            progress=lambda done, total: seen.append(total),
        )
    assert info.size == len(expected)
    assert content(client, "golden") == expected
    assert seen[-1] == len(expected)


def test_an_image_of_zeros_stores_nothing(
    instance: Running, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "zeros").write_bytes(bytes(5 * BLOCK + 1))
    info = import_image(client, tmp_path / "zeros", "z", block_size=BLOCK)
    assert (info.size, info.depth) == (5 * BLOCK + 1, 0)
    assert contents(instance) == 0
    assert content(client, "z") == bytes(5 * BLOCK + 1)


def test_what_cannot_be_imported_leaves_nothing(client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "small").write_bytes(b"x")
    client.create("taken", MIB)
    for source, name, error in (
        (tmp_path / "empty", "a", archipelago.UsageError),
        (tmp_path, "b", archipelago.UsageError),
        (tmp_path / "none", "c", FileNotFoundError),
        (tmp_path / "small", "taken", archipelago.VolumeExists),
        (tmp_path / "small", "a/b", archipelago.UsageError),
    ):
        with pytest.raises(error):
            import_image(client, source, name)
    with pytest.raises(archipelago.UsageError):
        import_image(client, tmp_path / "small", "d", block_size=12345)
    assert [v.name for v in client.list()] == ["taken"]


@requires_qemu
@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vhdx", "vpc", "vdi"])
def test_other_formats_are_read_by_qemu(
    client: Client, tmp_path: Path, image_format: str
) -> None:
    expected = sparse_image(tmp_path / "raw")
    image = tmp_path / "image"
    convert = ["qemu-img", "convert", "-O", image_format, "-f", "raw"]
    subprocess.run([*convert, str(tmp_path / "raw"), str(image)], check=True)
    import_image(client, image, "golden", block_size=BLOCK)
    got = content(client, "golden")
    # some formats round the size up
    assert got[: len(expected)] == expected
    assert not any(got[len(expected) :])


@requires_qemu
def test_an_overlay_is_refused_by_name_of_what_it_lies_over(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "base").write_bytes(b"x" * MIB)
    overlay = tmp_path / "overlay"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
         str(tmp_path / "base"), str(overlay)],
        check=True,
    )  # fmt: skip
    with pytest.raises(archipelago.UsageError, match="overlay over"):
        import_image(client, overlay, "golden")
    (tmp_path / "broken").write_bytes(b"QFI\xfb" + bytes(1000))
    with pytest.raises(archipelago.UsageError, match="QEMU cannot read"):
        import_image(client, tmp_path / "broken", "golden")
    assert client.list() == []


@requires_qemu
@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vhdx", "vpc", "vdi"])
def test_an_image_that_was_cut_off_is_refused(
    client: Client, tmp_path: Path, image_format: str
) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(os.urandom(8 * MIB))
    convert = ["qemu-img", "convert", "-O", image_format, "-f", "raw"]
    subprocess.run([*convert, str(raw), str(image)], check=True)
    os.truncate(image, image.stat().st_size * 6 // 10)
    with pytest.raises(archipelago.UsageError, match=r"damaged|cannot read"):
        import_image(client, image, "golden")
    assert client.list() == []


def test_export_is_sparse_and_the_same(client: Client, tmp_path: Path) -> None:
    expected = sparse_image(tmp_path / "image")
    import_image(client, tmp_path / "image", "golden", block_size=BLOCK)
    seen: list[tuple[int, int | None]] = []
    out = tmp_path / "out"
    out.write_bytes(b"old")
    export_volume(client, "golden", out, lambda *at: seen.append(at))
    assert out.read_bytes() == expected
    assert out.stat().st_blocks * 512 <= 9 * BLOCK
    assert seen[-1] == (len(expected), len(expected))
    assert sorted(p.name for p in tmp_path.iterdir() if "part" in p.name) == []
    with pytest.raises(archipelago.VolumeNotFound):
        export_volume(client, "none", tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        export_volume(client, "golden", tmp_path / "no" / "where")
    assert not (tmp_path / "other").exists()


def test_export_replaces_what_a_link_leads_to(client: Client, tmp_path: Path) -> None:
    client.create("v", MIB)
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_bytes(b"old")
    there.chmod(0o600)
    link.symlink_to("there")
    export_volume(client, "v", link)
    assert link.is_symlink()
    assert there.read_bytes() == bytes(MIB)
    assert there.stat().st_mode & 0o777 == 0o600
    link.unlink()
    link.symlink_to("new")
    export_volume(client, "v", link)
    assert link.is_symlink()
    assert (tmp_path / "new").read_bytes() == bytes(MIB)


def test_an_export_that_fails_names_its_file(client: Client, tmp_path: Path) -> None:
    client.create("v", MIB)
    for target, error, said in (
        ("/dev/full", OSError, "/dev/full"),
        (tmp_path, IsADirectoryError, str(tmp_path)),
        (tmp_path / "no" / "where", FileNotFoundError, str(tmp_path / "no" / "where")),
        ("", archipelago.UsageError, "empty"),
    ):
        with pytest.raises(error) as told:
            export_volume(client, "v", target)
        assert said in str(told.value)
        assert ".part" not in str(told.value)
    assert [p.name for p in tmp_path.iterdir()] == ["instance"]


def test_export_to_a_pipe(client: Client, tmp_path: Path) -> None:
    client.create("v", 6 * MIB + 5, block_size=BLOCK)
    with client.open("v") as volume:
        volume.pwrite(b"middle", 5 * MIB)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with (
        (tmp_path / "out").open("wb") as out,
        subprocess.Popen(["cat", str(fifo)], stdout=out) as reader,
    ):
        export_volume(client, "v", fifo)
        assert reader.wait() == 0
    assert (tmp_path / "out").read_bytes() == bytes(5 * MIB) + b"middle" + bytes(
        MIB - 1
    )
