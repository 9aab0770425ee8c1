# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: one image, a thousand clones, two of them used over NBD.

Everything happens under ``build/demo`` with an instance of its own, and nothing is left
running.  Each check is made by an independent tool: ``e2fsck``, ``qemu-img compare``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

import archipelago
from archipelago.units import format_size

NR_CLONES = 1000
DATA_BYTES = 600 << 20
IMAGE_BYTES = 1 << 30
CHUNK = 4096
BATCH = 25

WORK = Path("build/demo").resolve()
BIN = Path(sys.executable).parent
console = Console(stderr=True)


class DemoError(Exception):
    """A check failed or a tool could not run."""


@dataclass
class Figures:
    """What the closing table shows."""

    image_seconds: float = 0
    import_seconds: float = 0
    clone_seconds: float = 0
    snapshot_seconds: float = 0
    logical_bytes: int = 0
    stored_bytes: int = 0
    read_iops: float = 0
    write_iops: float = 0


def run(*argv: str | Path, ok: tuple[int, ...] = (0,)) -> str:
    """Run a command, show it, and return what it printed."""
    shown = " ".join(str(a).replace(str(WORK), "build/demo") for a in argv)
    console.print(
        f"  [dim]$ {shown if len(shown) < 110 else shown[:107] + '...'}[/dim]"
    )
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    if done.returncode not in ok:
        raise DemoError(
            f"{argv[0]} failed: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout


@contextlib.contextmanager
def bar(title: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar for one step."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield progress, progress.add_task(title, total=total)


def collect_files(into: Path) -> None:
    """Copy files of this machine until there is enough to fill a small system disk."""
    copied = 0
    with bar("collecting files (MiB)", DATA_BYTES >> 20) as (progress, task):
        for root in ("/usr/lib", "/usr/bin", "/usr/share", "/usr/local"):
            for folder, _, names in os.walk(root):
                for name in names:
                    source = Path(folder, name)
                    if source.is_symlink() or not os.access(source, os.R_OK):
                        continue
                    if not source.is_file():
                        continue
                    target = into / source.relative_to("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)
                    copied += source.stat().st_size
                    progress.update(task, completed=min(copied, DATA_BYTES) >> 20)
                    if copied >= DATA_BYTES:
                        return
    raise DemoError(f"this machine has only {copied >> 20} MiB of files under /usr")


def make_image(image: Path) -> None:
    """An ext4 image from the machine's own files."""
    files = WORK / "files"
    collect_files(files)
    run("mke2fs", "-q", "-t", "ext4", "-d", files, image, f"{IMAGE_BYTES >> 20}M")
    shutil.rmtree(files)


def edited_copy(source: Path, target: Path, name: str, megabytes: int) -> None:
    """A reference: the image with one more file in it, as another tool makes it."""
    run("cp", "--sparse=always", "--reflink=auto", source, target)
    seed = hashlib.sha256(name.encode()).digest()
    payload = WORK / name
    payload.write_bytes(hashlib.shake_256(seed).digest(megabytes << 20))
    run("debugfs", "-w", "-R", f"write {payload} {name}", target)


def write_difference(url: str, old: Path, new: Path) -> int:
    """Write over NBD, with qemu-io, every 4 KiB in which two files differ.

    Returns:
        Bytes written.
    """
    patches = WORK / "patches"
    patches.mkdir(exist_ok=True)
    commands: list[str] = []
    written = 0
    with old.open("rb") as a, new.open("rb") as b:
        start, run_bytes = 0, b""
        for offset in range(0, IMAGE_BYTES + CHUNK, CHUNK):
            theirs = b.read(CHUNK)
            if a.read(CHUNK) != theirs:
                start = start if run_bytes else offset
                run_bytes += theirs
            elif run_bytes:
                patch = patches / f"{start:x}"
                patch.write_bytes(run_bytes)
                commands += ["-c", f"write -s {patch} {start} {len(run_bytes)}"]
                written += len(run_bytes)
                run_bytes = b""
    run("qemu-io", "-f", "raw", *commands, "-c", "flush", url)
    shutil.rmtree(patches)
    return written


def check(client: archipelago.Client, name: str, reference: Path) -> None:
    """A volume holds exactly the reference, and a sound filesystem."""
    out = run(
        "qemu-img", "compare", "-f", "raw", "-F", "raw", client.url(name), reference
    )
    if "identical" not in out:
        raise DemoError(f"{name} differs from {reference.name}: {out.strip()}")
    copy = WORK / "fsck.img"
    run(BIN / "vlmc", "export", name, copy)
    run("e2fsck", "-fn", copy)
    copy.unlink()


def measure(url: str, pattern: str) -> float:
    """4 KiB random I/O at queue depth 32 [operations per second], by fio."""
    out = run(
        "fio",
        "--name=demo",
        "--ioengine=nbd",
        f"--uri={url}",
        f"--rw={pattern}",
        "--bs=4k",
        "--iodepth=32",
        "--time_based",
        "--runtime=3",
        "--size=512m",
        "--output-format=json",
    )
    job = json.loads(out[out.index("{") :])["jobs"][0]
    return float(job["read" if pattern == "randread" else "write"]["iops"])


def clone_all(client: archipelago.Client) -> float:
    """Make the clones; returns the seconds spent in the store."""
    names = [f"clone-{i:04}" for i in range(NR_CLONES)]
    spent = 0.0
    with bar("cloning", NR_CLONES) as (progress, task):
        for first in range(0, NR_CLONES, BATCH):
            begin = time.perf_counter()
            client.clone("golden", names[first : first + BATCH])
            spent += time.perf_counter() - begin
            progress.advance(task, BATCH)
    return spent


def main_job(figures: Figures) -> None:
    """All steps, against a running instance."""
    image = WORK / "image.raw"
    console.rule("1. an image from this machine's files")
    begin = time.perf_counter()
    make_image(image)
    figures.image_seconds = time.perf_counter() - begin

    console.rule("2. import: content-addressed, read-only")
    begin = time.perf_counter()
    run(BIN / "vlmc", "import", image, "golden")
    figures.import_seconds = time.perf_counter() - begin

    with archipelago.connect() as client:
        console.rule(f"3. {NR_CLONES:,} clones")
        figures.clone_seconds = clone_all(client)

        console.rule("4. two clones in use over NBD, one snapshot in between")
        a, b = "clone-0001", "clone-0002"
        first, second, other = WORK / "a1.raw", WORK / "a2.raw", WORK / "b.raw"
        edited_copy(image, first, "first-file", 8)
        edited_copy(first, second, "second-file", 4)
        edited_copy(image, other, "other-file", 6)
        write_difference(client.url(a), image, first)
        begin = time.perf_counter()
        client.snapshot(a, "midway")
        figures.snapshot_seconds = time.perf_counter() - begin
        write_difference(client.url(a), first, second)
        write_difference(client.url(b), image, other)

        console.rule("5. does each hold what it should?")
        for name, reference in (
            (a, second),
            ("midway", first),
            (b, other),
            ("golden", image),
            ("clone-0003", image),
            (f"clone-{NR_CLONES - 1:04}", image),
        ):
            check(client, name, reference)
            console.print(f"  [green]{name} is exactly {reference.name}, clean[/green]")

        console.rule("6. how fast")
        usage = client.df()
        figures.logical_bytes = usage.logical_bytes
        figures.stored_bytes = usage.stored_bytes
        figures.read_iops = measure(client.url("clone-0004"), "randread")
        figures.write_iops = measure(client.url("clone-0005"), "randwrite")


def show(figures: Figures) -> None:
    """The closing table, on standard output."""
    table = Table(title="Archipelago: one image, a thousand clones", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    ratio = figures.logical_bytes / max(figures.stored_bytes, 1)
    rate = IMAGE_BYTES / figures.import_seconds
    for label, value in (
        ("image", format_size(IMAGE_BYTES)),
        ("import", f"{figures.import_seconds:.2f} s, {format_size(int(rate))}/s"),
        ("clones", f"{NR_CLONES:,}"),
        ("time per clone", f"{figures.clone_seconds / NR_CLONES * 1e3:.2f} ms"),
        ("snapshot of a volume in use", f"{figures.snapshot_seconds * 1e3:.2f} ms"),
        ("bytes addressed", format_size(figures.logical_bytes)),
        ("bytes stored", format_size(figures.stored_bytes)),
        ("addressed / stored", f"{ratio:,.0f} x"),
        ("4K random read, QD32, NBD", f"{figures.read_iops:,.0f} IOPS"),
        ("4K random write to a fresh clone, QD32", f"{figures.write_iops:,.0f} IOPS"),
    ):
        table.add_row(label, value)
    Console().print(table)


def main() -> int:
    """Run the demonstration; 0 if every check held."""
    if WORK.exists():
        shutil.rmtree(WORK)
    WORK.mkdir(parents=True)
    os.environ["ARCHIPELAGO_HOME"] = str(WORK / "home")
    figures = Figures()
    try:
        run(BIN / "archipelago", "start")
        try:
            main_job(figures)
        finally:
            run(BIN / "archipelago", "stop", "--force", ok=(0, 8))
    except (DemoError, archipelago.ArchipelagoError, OSError) as error:
        console.print(f"[red]demo: {error}[/red]")
        return 1
    except KeyboardInterrupt:
        console.print("[red]demo: interrupted[/red]")
        return 130
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
