# SPDX-License-Identifier: Apache-2.0
"""Every write followed by a flush, as databases and journals do, over NBD.

Question: what does durability cost, on one volume and on eight at once, on sectors that
are owned and on a fresh clone's?  Each volume has a connection of its own with one
request under way.  Servers take turns within each round; the median counts.  Eight
images are eight processes of qemu-nbd, and eight volumes of one instance.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import archipelago
from benchmarks import fio
from benchmarks.report import Row
from benchmarks.rivals import ours, qemu_nbd
from benchmarks.target import Target

MANY = 8
#: Of one image [bytes].
SIZE = 256 << 20
SIZE_OF_MANY = 64 << 20


@dataclass(frozen=True)
class Served:
    """Images of one kind, on one server.

    Attributes:
        name: of the server, for the table.
        targets: the images.
    """

    name: str
    targets: list[Target]


def _command(served: Served, size: int, seconds: float) -> list[str]:
    uris = [target.uri for target in served.targets]
    return fio.argv_flushed(uris, seconds, size)


def _rate(served: Served, size: int, seconds: float) -> float:
    """Writes, each with its flush, per second."""
    return fio.run(_command(served, size, seconds)).iops


def _rows(work: str, rates: dict[str, float], volumes: int) -> list[Row]:
    """One row for each rival; ours is the first."""
    (_, mine), *rivals = rates.items()
    latency = f" ({volumes * 1e6 / mine:,.0f} us)"
    return [
        Row(work, f"{mine:,.0f} /s{latency}", f"{name} {rate:,.0f}", mine / rate, 1.0)
        for name, rate in rivals
    ]


def _images(
    stack: contextlib.ExitStack, work: Path, fmt: str, nr: int, size: int
) -> Served:
    """Images served by qemu-nbd until the stack ends, every byte written."""
    targets = []
    for i in range(nr):
        folder = work / f"{fmt}-{nr}-{i}"
        folder.mkdir()
        targets.append(stack.enter_context(qemu_nbd.image(folder, fmt, size)))
        fio.fill(targets[-1].uri, size)
    return Served(targets[0].name, targets)


def _volumes(client: archipelago.Client, nr: int, size: int) -> Served:
    """Volumes of ours, every byte written."""
    targets = []
    for i in range(nr):
        client.create(f"owned-{nr}-{i}", size=size)
        targets.append(ours.export(client, f"owned-{nr}-{i}"))
        fio.fill(targets[-1].uri, size)
    return Served(targets[0].name, targets)


def _owned(work: Path, nr: int, size: int, seconds: float, rounds: int) -> list[Row]:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(ours.instance(work / f"home-{nr}"))
        served = [
            _volumes(client, nr, size),
            _images(stack, work, "raw", nr, size),
            _images(stack, work, "qcow2", nr, size),
        ]
        taken: dict[str, list[float]] = {one.name: [] for one in served}
        for _ in range(rounds):
            for one in served:
                taken[one.name].append(_rate(one, size, seconds))
    return _rows(
        f"4K write + flush, owned, {_volumes_text(nr)}",
        {name: median(rates) for name, rates in taken.items()},
        nr,
    )


@contextlib.contextmanager
def _overlays(
    work: Path, nr: int, size: int, golden: Path, label: str
) -> Iterator[Served]:
    with contextlib.ExitStack() as stack:
        targets = []
        for i in range(nr):
            folder = work / f"{label}-{i}"
            folder.mkdir()
            image = qemu_nbd.image(folder, "qcow2", size, backing=golden)
            targets.append(stack.enter_context(image))
        yield Served(targets[0].name, targets)


def _fresh(work: Path, nr: int, size: int, seconds: float, rounds: int) -> list[Row]:
    """A new clone, or overlay, for every round and volume."""
    raw, golden = work / f"golden-{nr}.raw", work / f"golden-{nr}.qcow2"
    with raw.open("wb") as file:
        subprocess.run(
            ["head", "-c", str(size), "/dev/urandom"], stdout=file, check=True
        )
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, golden], check=True
    )
    taken: dict[str, list[float]] = {}
    home = work / f"home-fresh-{nr}"
    with ours.instance(home) as client:
        subprocess.run(
            [ours.BIN / "vlmc", "--home", home, "import", raw, "golden"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        raw.unlink()
        for i in range(rounds):
            names = [f"clone-{i}-{j}" for j in range(nr)]
            client.clone("golden", names)
            mine = Served("archipelago", [ours.export(client, n) for n in names])
            with _overlays(work, nr, size, golden, f"overlay-{nr}-{i}") as overlays:
                for one in (mine, overlays):
                    rate = _rate(one, size, seconds)
                    taken.setdefault(one.name, []).append(rate)
    golden.unlink()
    return _rows(
        f"4K write + flush, fresh clone, {_volumes_text(nr)}",
        {name: median(rates) for name, rates in taken.items()},
        nr,
    )


def _volumes_text(nr: int) -> str:
    return "QD1" if nr == 1 else f"{nr} volumes at QD1"


def flushed(work: Path, seconds: float, nr: int) -> tuple[list[Row], list[str]]:
    """All rows."""
    rows: list[Row] = []
    parts: tuple[Callable[[Path, int, int, float, int], list[Row]], ...]
    parts = (_owned, _fresh)
    for part in parts:
        for volumes, size in ((1, SIZE), (MANY, SIZE_OF_MANY)):
            rows += part(work, volumes, size, seconds, nr)
    return rows, [
        " ".join(fio.argv_flushed(["URI"], seconds, SIZE)),
        f"{MANY} volumes: one job each, {SIZE_OF_MANY >> 20} MiB",
    ]
