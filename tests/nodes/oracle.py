# SPDX-License-Identifier: Apache-2.0
"""Judges what may be read, from what was written, answered and flushed.

For each unit the oracle knows the bytes that are settled, and for the present tenure
what its lanes did since.  Each unit is written by one lane only, so the operations on
it are in order.

* While the holder lives, a unit has the bytes of the last operation on it.
* The next holder may find the last flushed operation or any later one, and if none was
  flushed what was settled before.  What it finds first is settled from then on: a
  change that the new holder did not make is a late write of an old fence.
* What the old holder is told afterwards counts too: a flush that is answered well must
  cover something that was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.nodes.history import UNIT, History, Kind, Stamp, State

_SETTLED = None


class Violation(AssertionError):
    """The product broke its promise."""


class Told(NamedTuple):
    """Up to which operation a lane was told that it is flushed, and that it is done."""

    flushed: int
    answered: int


@dataclass(frozen=True)
class _Found:
    """What the next holder found, to be judged again when the old one has ended."""

    settled: list[bytes]
    started: list[int]
    image: bytes
    histories: list[History]


class Oracle:
    """The truth about one volume.

    Args:
        units: its size [512 bytes].
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self._settled = [bytes(UNIT)] * units
        self._histories: list[History] = []
        self._open_cases: list[_Found] = []

    def begin(self, histories: Sequence[History]) -> None:
        """A tenure begins: from now on these lanes may change the volume."""
        assert not self._histories, "the tenure before was not judged"
        waiting = [h for found in self._open_cases for h in found.histories]
        assert not any(h in waiting for h in histories), "and not to its end"
        self._histories = list(histories)

    def holder_reads(self, image: bytes, when: str) -> None:
        """The holder reads, while its lanes are at rest and all was answered well."""
        latest = self._latest()
        for unit, got in _units(image):
            want = latest.get(unit, self._settled[unit])
            if got != want:
                raise Violation(f"{when}: unit {unit} {_shows(got)}; {_wants([want])}")

    def settle(self, image: bytes) -> None:
        """All of it was flushed, and read by `holder_reads`: the tenure is over."""
        self._settled = [got for _, got in _units(image)]
        self._histories = []

    def cut(self) -> list[int]:
        """How far the lanes are now: nothing that they send later may be found."""
        return [history.started for history in self._histories]

    def next_holder_reads(self, image: bytes, started: list[int], when: str) -> None:
        """The next holder reads for the first time; the tenure is over.

        Args:
            image: all of the volume.
            started: from `cut`, after the next holder had opened the volume.
            when: for the message.
        """
        found = _Found(self._settled, started, image, self._histories)
        _judge(found, when)
        self._open_cases.append(found)
        self._settled = [got for _, got in _units(image)]
        self._histories = []

    def judge_again(self, when: str) -> None:
        """Lanes of former tenures have ended: what were they told to the last?"""
        cases, self._open_cases = self._open_cases, []
        for found in cases:
            if any(history.state == State.RUNNING for history in found.histories):
                self._open_cases.append(found)
                continue
            _judge(found, when)
            for history, started in zip(found.histories, found.started, strict=True):
                _no_promise_after(history, started, when)

    def reader_reads(
        self, image: bytes, before: list[Told], started: list[int], when: str
    ) -> None:
        """Somebody without the lease reads, while the lanes are at work.

        Args:
            image: all of the volume.
            before: from `told`, before it opened the volume.
            started: from `cut`, after it had read.
            when: for the message.
        """
        found = _Found(self._settled, started, image, self._histories)
        _judge(found, when, before)

    def told(self) -> list[Told]:
        """What the lanes were told up to now."""
        return [Told(h.flushed, h.answered) for h in self._histories]

    def _latest(self) -> dict[int, bytes]:
        latest = {}
        for history in self._histories:
            for number, (first, units, kind) in enumerate(
                history.records(history.started)
            ):
                for unit in range(first, first + units):
                    latest[unit] = (history, number, kind)
        return {u: h.value(n, u, k) for u, (h, n, k) in latest.items()}


def _judge(found: _Found, when: str, told: list[Told] | None = None) -> None:
    """Each unit shows its last durable operation or a later one, whole."""
    reads_along = told is not None
    if told is None:
        told = [Told(h.flushed, h.started) for h in found.histories]
    allowed = _allowed(found, told)
    for unit, got in _units(found.image):
        settled = found.settled[unit]
        if unit not in allowed:
            if got != settled:
                raise Violation(
                    f"{when}: unit {unit} {_shows(got)}; nobody may have changed it: "
                    f"{_wants([settled])}"
                )
            continue
        wanted = [
            settled if case is _SETTLED else case[0].value(case[1], unit, case[2])
            for case in allowed[unit]
        ]
        if got not in wanted and not (reads_along and _is_mix(got, wanted)):
            raise Violation(f"{when}: unit {unit} {_shows(got)}; {_wants(wanted)}")


def _is_mix(got: bytes, wanted: list[bytes]) -> bool:
    """Every word is one that the unit may show there.

    Who reads along without the lease may meet a write while it is copied into the page
    cache: no lock is between them, and nobody was told that the write is done.
    """
    return len(wanted) > 1 and all(
        any(got[at : at + 8] == value[at : at + 8] for value in wanted)
        for at in range(0, UNIT, 8)
    )


def _no_promise_after(history: History, started: int, when: str) -> None:
    """What was sent after the next holder had the volume was never called durable."""
    later = history.records(history.started)[started:]
    if history.flushed > started or any(kind & Kind.DURABLE for _, _, kind in later):
        raise Violation(
            f"{when}: node {history.node}, lane {history.lane} of tenure "
            f"{history.tenure} was told that operations after {started} are durable, "
            "when the volume was another's"
        )


def _allowed(
    found: _Found, told: list[Told]
) -> dict[int, list[tuple[History, int, Kind] | None]]:
    """For each unit that was changed: which operations it may show."""
    allowed: dict[int, list[tuple[History, int, Kind] | None]] = {}
    for history, started, (flushed, answered) in zip(
        found.histories, found.started, told, strict=True
    ):
        for number, (first, units, kind) in enumerate(history.records(started)):
            case = (history, number, kind)
            for unit in range(first, first + units):
                if number < flushed or (number < answered and kind & Kind.DURABLE):
                    allowed[unit] = [case]
                else:
                    allowed.setdefault(unit, [_SETTLED]).append(case)
    return allowed


def _units(image: bytes) -> list[tuple[int, bytes]]:
    return [(at // UNIT, image[at : at + UNIT]) for at in range(0, len(image), UNIT)]


def _shows(data: bytes) -> str:
    try:
        stamp = Stamp.read(data)
    except ValueError as error:
        return f"shows {error}: {data[:64].hex()}..."
    return "shows zeros" if stamp is None else f"shows {stamp}"


def _wants(cases: list[bytes]) -> str:
    shown = [_shows(case).removeprefix("shows ") for case in cases[:6]]
    more = f" or {len(cases) - 6} more" if len(cases) > 6 else ""
    return "allowed: " + " or ".join(shown) + more
