# SPDX-License-Identifier: Apache-2.0
"""What `xseg` writes to stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from xseg.statistics import PortStatistics, RequestInfo, SegmentStatistics
from xseg.units import format_size
from xseg.watch import PortRate

__all__ = [
    "checked",
    "created",
    "destroyed",
    "ports",
    "reaped",
    "requests",
    "statuses",
    "watched",
]

_TARGET_WIDTH = 40


def _write_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _write_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; columns whose heading starts with ">" are set to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.lstrip(">"), justify="right" if right else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # Into a pipe nothing is cut: width is for terminals.
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=1000)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def created(segment: SegmentStatistics, as_json: bool) -> None:
    """Tell what was created."""
    if as_json:
        _write_json(asdict(segment))
    else:
        click.echo(
            f"{segment.name}: {format_size(segment.heap_bytes)} for buffers, "
            f"{segment.nr_ports} ports, {segment.nr_requests} requests"
        )


def destroyed(name: str, as_json: bool) -> None:
    """Tell what was removed; people hear of trouble only."""
    if as_json:
        _write_json({"destroyed": name})


def statuses(found: Sequence[SegmentStatistics], as_json: bool) -> None:
    """Show segments."""
    if as_json:
        _write_json({"segments": [asdict(segment) for segment in found]})
        return
    if not found:
        click.echo("no segments")
        return
    _write_table(
        ["segment", ">size", ">heap", ">used", ">buffers", ">requests", ">ports"],
        (
            (
                s.name,
                format_size(s.size_bytes),
                format_size(s.heap_bytes),
                format_size(s.heap_used_bytes),
                s.nr_used_buffers,
                f"{s.nr_requests - s.nr_free_requests}/{s.nr_requests}",
                s.nr_ports,
            )
            for s in found
        ),
    )


def ports(found: Sequence[PortStatistics], as_json: bool) -> None:
    """Show ports."""
    if as_json:
        _write_json({"ports": [asdict(port) for port in found]})
        return
    if not found:
        click.echo("no ports are bound")
        return
    _write_table(
        [
            ">port",
            "role",
            "state",
            ">pid",
            ">queue",
            ">accepted",
            ">completed",
            ">errors",
            ">submitted",
            ">reaped",
            ">read",
            ">written",
            ">sleeps",
        ],
        (
            (
                p.id,
                p.role,
                p.state if p.alive else "dead",
                p.owner_pid,
                p.queue_depth,
                p.accepted,
                p.completed,
                p.errors,
                p.submitted,
                p.reaped,
                format_size(p.read_bytes),
                format_size(p.write_bytes),
                p.sleeps,
            )
            for p in found
        ),
    )


def checked(name: str, findings: Sequence[str], as_json: bool) -> None:
    """Tell what is wrong with a segment."""
    if as_json:
        _write_json({"sound": not findings, "findings": list(findings)})
    elif findings:
        for finding in findings:
            click.echo(finding)
    else:
        click.echo(f"{name}: sound")


def watched(found: Sequence[PortRate], as_json: bool) -> None:
    """Show one interval; as JSON, on one line."""
    if as_json:
        click.echo(json.dumps({"ports": [asdict(port) for port in found]}))
        return
    _write_table(
        [
            ">port",
            "role",
            ">queue",
            ">serving",
            ">answered/s",
            ">errors/s",
            ">asked/s",
            ">read/s",
            ">written/s",
            ">latency us",
        ],
        (
            (
                p.id,
                p.role,
                p.queue_depth,
                p.serving,
                f"{p.answered:.0f}",
                f"{p.errors:.0f}",
                f"{p.asked:.0f}",
                format_size(int(p.read_bytes)),
                format_size(int(p.write_bytes)),
                f"{p.latency_ns / 1000:.0f}" if p.latency_ns else "-",
            )
            for p in found
        ),
    )
    click.echo("")


def requests(found: Sequence[RequestInfo], as_json: bool) -> None:
    """Show requests."""
    if as_json:
        _write_json({"requests": [asdict(rq) for rq in found]})
        return
    if not found:
        click.echo("no requests are in use")
        return
    _write_table(
        [
            ">request",
            "state",
            "op",
            ">from",
            ">to",
            ">pid",
            ">offset",
            ">size",
            ">result",
            ">age",
            "target",
        ],
        (
            (
                rq.index,
                rq.state,
                rq.op,
                rq.src_port,
                rq.dst_port,
                rq.owner_pid,
                rq.offset,
                rq.size,
                rq.result,
                f"{rq.age_ns / 1e6:.1f} ms" if rq.age_ns else "",
                _shortened(rq.target),
            )
            for rq in found
        ),
    )


def _shortened(text: str) -> str:
    if len(text) <= _TARGET_WIDTH:
        return text
    return text[: _TARGET_WIDTH - 3] + "..."


def reaped(result: dict[str, int], as_json: bool) -> None:
    """Tell what was reclaimed."""
    if as_json:
        _write_json(result)
    else:
        click.echo(
            f"{result['ports']} ports, {result['requests']} requests and "
            f"{result['buffers']} buffers given back"
        )
