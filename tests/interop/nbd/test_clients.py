# SPDX-License-Identifier: Apache-2.0
"""nbdinfo, nbdcopy, qemu and fio are satisfied."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.instance import Instance
from tests.interop.nbd.clients import MIB, Export, tool


def image(path: Path, rng: random.Random, size: int = 64 * MIB) -> Path:
    """A sparse file with data at its start, in its middle and at its end."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset in (0, size // 2 + 4096, size - 3 * MIB):
            file.seek(offset)
            file.write(rng.randbytes(3 * MIB - 512))
    return path


@pytest.mark.requires_nbd
def test_nbdinfo_shows_what_is_offered(export: Export) -> None:
    info = json.loads(tool("nbdinfo", "--json", export.url))
    assert info["protocol"] == "newstyle-fixed"
    assert info["structured"] is True
    shown = info["exports"][0]
    assert shown["export-name"] == export.name
    assert shown["export-size"] == export.size
    assert shown["contexts"] == ["base:allocation"]
    assert shown["is_read_only"] is False
    assert shown["block_size_minimum"] == 1
    assert shown["block_size_preferred"] == 4096
    assert shown["block_size_maximum"] == 32 * MIB
    for can in ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim"):
        assert shown[f"can_{can}"] is True


@pytest.mark.requires_nbd
def test_nbdinfo_lists_volumes_and_snapshots(export: Export) -> None:
    snapshot = export.snapshot()
    url = export.url.replace(f"/{export.name}?", "/?")
    listed = json.loads(tool("nbdinfo", "--json", "--list", url))
    by_name = {e["export-name"]: e for e in listed["exports"]}
    assert by_name[export.name]["is_read_only"] is False
    assert by_name[snapshot.name]["is_read_only"] is True
    assert by_name[snapshot.name]["can_trim"] is False


@pytest.mark.requires_nbd
def test_nbdinfo_of_nothing_says_so(export: Export) -> None:
    url = export.url.replace(export.name, "no-such-volume")
    tool("nbdinfo", url, exit_code=1)


@pytest.mark.requires_nbd
@pytest.mark.requires_qemu
@pytest.mark.slow
def test_nbdcopy_there_and_back(
    export: Export, tmp_path: Path, rng: random.Random
) -> None:
    source = image(tmp_path / "source", rng)
    tool("nbdcopy", "--flush", source, export.url)
    tool("nbdcopy", export.url, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    tool("qemu-img", "compare", "-f", "raw", "-F", "raw", source, export.url)


@pytest.mark.requires_nbd
@pytest.mark.slow
def test_nbdcopy_over_several_connections(
    export: Export,
    make_export: Callable[[int], Export],
    tmp_path: Path,
    rng: random.Random,
) -> None:
    source = image(tmp_path / "source", rng)
    other = make_export(export.size)
    tool("nbdcopy", "--connections=4", "--requests=32", source, export.url)
    tool("nbdcopy", "--connections=4", "--request-size=33554432", export.url, other.url)
    tool("nbdcopy", "--no-extents", other.url, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


@pytest.mark.requires_nbd
@pytest.mark.slow
def test_nbdcopy_with_allocation(
    export: Export, tmp_path: Path, rng: random.Random
) -> None:
    """Zeros that must be allocated are written."""
    source = image(tmp_path / "source", rng)
    tool("nbdcopy", "--allocated", source, export.url)
    extents = json.loads(tool("nbdinfo", "--json", "--map", export.url))
    assert [e["type"] for e in extents] == [0]


@pytest.mark.requires_qemu
def test_qemu_img_info(export: Export) -> None:
    info = json.loads(tool("qemu-img", "info", "--output=json", export.url))
    assert info["virtual-size"] == export.size
    assert info["format"] == "raw"


@pytest.mark.requires_qemu
def test_qemu_img_map_shows_what_was_written(export: Export) -> None:
    tool("qemu-io", "-f", "raw", "-c", "write 1M 64k", "-c", "flush", export.url)
    extents = json.loads(tool("qemu-img", "map", "--output=json", export.url))
    data = [(e["start"], e["length"]) for e in extents if e["data"]]
    assert data == [(MIB, 64 << 10)]
    assert sum(e["length"] for e in extents) == export.size
    tool("qemu-io", "-f", "raw", "-c", "discard 1M 64k", export.url)
    extents = json.loads(tool("qemu-img", "map", "--output=json", export.url))
    assert not any(e["data"] for e in extents)


@pytest.mark.requires_qemu
@pytest.mark.slow
def test_qemu_img_convert_there_and_back(
    export: Export, tmp_path: Path, rng: random.Random
) -> None:
    source = image(tmp_path / "source", rng)
    tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, export.url)
    tool("qemu-img", "compare", "-f", "raw", "-F", "raw", source, export.url)
    copy = tmp_path / "copy.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", export.url, copy)
    tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, copy)
    assert copy.stat().st_size < 16 * MIB  # holes stayed holes


@pytest.mark.requires_qemu
def test_qemu_io_of_any_alignment(export: Export) -> None:
    done = tool(
        *("qemu-io", "-f", "raw"),
        *("-c", "write -P 7 1000 5000"),
        *("-c", "read -P 7 1000 5000"),
        *("-c", "read -P 0 0 1000"),
        *("-c", "read -P 0 6000 10000"),
        *("-c", "write -f -P 9 4095 2"),
        *("-c", "read -P 9 4095 2"),
        *("-c", "read -P 7 1000 3095"),
        *("-c", "write -z 2000 100"),
        *("-c", "write -z -u 8k 1M"),
        *("-c", "read -P 0 2000 100"),
        *("-c", "discard 0 2M"),
        *("-c", "read -P 0 0 2M"),
        *("-c", "write -P 1 3M 32M"),
        *("-c", "flush"),
        *("-c", "read -P 1 3M 32M"),
        export.url,
    )
    assert "failed" not in done and "error" not in done


@pytest.mark.requires_nbd
@pytest.mark.requires_qemu
def test_a_size_that_is_no_multiple_of_anything(
    make_export: Callable[[int], Export],
) -> None:
    export = make_export(5 * MIB + 777)
    tool(
        *("qemu-io", "-f", "raw", "-c", "write -P 3 5242880 777"),
        *("-c", "read -P 3 5242880 777", export.url),
    )
    extents = json.loads(tool("nbdinfo", "--json", "--map", export.url))
    assert sum(e["length"] for e in extents) == export.size


@pytest.mark.requires_qemu
def test_a_snapshot_keeps_its_bytes_and_refuses_writes(export: Export) -> None:
    io = ("qemu-io", "-f", "raw")
    tool(*io, "-c", "write -P 1 0 1M", "-c", "flush", export.url)
    snapshot = export.snapshot()
    tool(*io, "-c", "write -P 2 0 1M", "-c", "flush", export.url)
    tool(*io, "-r", "-c", "read -P 1 0 1M", snapshot.url)
    tool(*io, "-c", "write -P 3 0 1M", snapshot.url, exit_code=1)
    tool(*io, "-r", "-c", "read -P 1 0 1M", snapshot.url)


@pytest.mark.requires_qemu
def test_what_was_flushed_is_there_after_a_restart(
    export: Export, instance: Instance
) -> None:
    io = ("qemu-io", "-f", "raw")
    tool(*io, "-c", "write -P 5 1M 2M", "-c", "flush", export.url)
    instance.restart()
    tool(*io, "-c", "read -P 5 1M 2M", "-c", "read -P 0 0 1M", export.url)


@pytest.mark.requires_fio
@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 32])
@pytest.mark.parametrize("block", ["512", "4k", "1500", "1M"])
def test_fio_verifies(export: Export, block: str, depth: int) -> None:
    tool(
        *("fio", "--name=verify", "--ioengine=nbd", f"--uri={export.url}"),
        *("--rw=randwrite", f"--bs={block}", f"--iodepth={depth}", "--size=32M"),
        *("--io_size=4M", "--verify=crc32c", "--verify_fatal=1", "--fsync=64"),
        "--verify_state_save=0",  # else it leaves a file where the tests run
        "--minimal",
    )
