# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 24: a damaged object hurts its own volumes alone, and is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import archipelago
from archipelago.images.import_ import import_image
from tests.helpers.inprocess import BLOCK, MIB, SECTOR, running


def test_a_missing_content_block_is_named_and_costs_its_sectors_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, image = tmp_path / "store", tmp_path / "image"
    image.write_bytes(b"".join(bytes([i]) * BLOCK for i in range(1, 5)))
    with running(tmp_path, store=store) as instance, instance.connect() as client:
        import_image(client, image, "golden", block_size=BLOCK)
        assert client.clone("golden", ["v"]).failed == {}
    lost = next(
        path
        for path in (store / "data" / "content").rglob("*")
        if path.is_file() and path.read_bytes()[:1] == b"\x03"
    )
    lost.unlink()
    with running(tmp_path, store=store) as instance, instance.connect() as client:
        with client.open("v") as volume:
            for number in (1, 2, 4):
                offset = (number - 1) * BLOCK
                assert volume.pread(BLOCK, offset) == bytes([number]) * BLOCK
            for _ in range(3):
                with pytest.raises(archipelago.ArchipelagoError):
                    volume.pread(SECTOR, 2 * BLOCK + SECTOR)
            volume.pwrite(b"new".ljust(BLOCK), 2 * BLOCK)  # needs nothing of the old
            assert volume.pread(3, 2 * BLOCK) == b"new"
        with client.open("golden") as volume:
            assert volume.pread(BLOCK, 0) == b"\x01" * BLOCK
    lines = [line for line in capfd.readouterr().err.splitlines() if lost.name in line]
    assert len(lines) == 1, "said once, however often it is read"
    assert '"v"' in lines[0]
    assert "in block 2" in lines[0]
    assert "docs/damage.md" in lines[0]


def test_a_damaged_journal_is_an_error_of_its_volume_that_names_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    with running(tmp_path, store=store) as instance, instance.connect() as client:
        for name in ("v", "w"):
            client.create(name, 8 * MIB, block_size=BLOCK)
            with client.open(name) as volume:
                volume.pwrite(name.encode() * SECTOR, 0)
        uuid = instance.ctx.headers.get("v").uuid
    (journal,) = (store / "maps" / "journals").glob(f"{uuid.hex()}.*")
    data = bytearray(journal.read_bytes())
    data[40] ^= 1
    journal.write_bytes(data)
    with running(tmp_path, store=store) as instance, instance.connect() as client:
        with pytest.raises(archipelago.MapCorrupt) as caught:
            client.open("v")
        assert 'the map of "v" is damaged' in str(caught.value)
        assert "docs/damage.md" in str(caught.value)
        found = {info.name: info.damaged for info in client.list()}
        assert 'the map of "v" is damaged' in (found["v"] or "")
        assert found["w"] is None
        assert "is damaged" in (client.info("v", usage=True).damaged or "")
        with client.open("w") as volume:
            assert volume.pread(1, 0) == b"w"
    errors = capfd.readouterr().err
    assert '"v": current journal 1' in errors
