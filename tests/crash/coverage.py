# SPDX-License-Identifier: Apache-2.0
"""Counts what a workload contained, so that a test can tell when it tests nothing."""

from __future__ import annotations

import json
from collections import Counter

from archipelago._header import LAYER, Header, unpack_header
from tests.crash.journal import Event, Kind

#: A stack that is called deep [entries].
DEEP_ENTRIES = 6


def count(events: list[Event]) -> Counter[str]:
    """Count operations, and what the background did.

    Returns:
        By name: the marks' operations, "killed" (processes), "killed in a call",
        "refused" (changes that were answered with an error), "held" (extents that a
        paused holder still had), "moved" and "broken" (volumes given to another node,
        or taken), "sealed", "copied", "checkpoint", "merge", "epoch",
        "reclaimed", "deep" (stacks), "deepest" (entries of one), and kinds of calls.
    """
    counts: Counter[str] = Counter()
    files: dict[int, str] = {}
    written: dict[str, bytes] = {}
    creating: dict[int, str] = {}
    headers: dict[bytes, Header] = {}
    for event in events:
        counts[event.kind.name] += 1
        if event.kind is Kind.MARK:
            _count_mark(counts, json.loads(event.path))
        elif event.kind is Kind.CREATE:
            creating[event.id] = event.path
            counts["sealed"] += event.path.endswith(".sealed")
        elif event.kind in (Kind.END, Kind.OBSERVED):
            path = creating.pop(event.id, None)
            if path is not None and event.length:
                files[event.length] = path
        elif event.kind in (Kind.WRITE, Kind.WRITE_DSYNC):
            written[files.get(event.inode, "")] = event.data
        elif event.kind is Kind.RENAME:
            counts["copied"] += event.path2.startswith("data/extents/")
            if event.path2.startswith("maps/headers/"):
                _count_header(counts, headers, written.get(event.path, b""))
        elif event.kind is Kind.UNLINK:
            folder = event.path.split("/")[1]
            counts["reclaimed"] += folder in ("extents", "layers", "journals")
    return counts


def _count_mark(counts: Counter[str], mark: dict[str, object]) -> None:
    counts[str(mark.get("op", ""))] += 1
    counts["settle"] += "settle" in mark
    note = mark.get("note")
    if note == "death":
        counts["killed"] += 1
        counts["killed in a call"] += bool(mark["calls"])
    elif note == "refused":
        counts["refused"] += 1
    elif note == "rival":
        counts["held"] += int(str(mark["held"]))
    elif note == "moved":
        counts["broken" if mark["broken"] else "moved"] += 1


def _count_header(
    counts: Counter[str], headers: dict[bytes, Header], data: bytes
) -> None:
    try:
        header = unpack_header(data)
    except ValueError:
        return
    before = headers.get(header.uuid)
    headers[header.uuid] = header
    counts["deepest"] = max(counts["deepest"], len(header.stack))
    counts["deep"] += len(header.stack) >= DEEP_ENTRIES
    if before is None:
        return
    counts["epoch"] += header.epoch != before.epoch
    counts["checkpoint"] += (
        header.epoch == before.epoch and header.journal != before.journal
    )
    known = {entry.id for entry in before.stack}
    counts["merge"] += any(
        entry.type == LAYER and entry.id not in known for entry in header.stack
    )


def unexplained(
    state: dict[str, bytes | None], real: dict[str, bytes | None]
) -> list[str]:
    """Name the files that the log does not explain: a call that was not recorded."""
    return sorted(
        path
        for path in {*state, *real}
        if path not in state or path not in real or state[path] != real[path]
    )
