# SPDX-License-Identifier: Apache-2.0
"""The oracle finds what it is there to find, and nothing else."""

from __future__ import annotations

import pytest

from tests.nodes.history import UNIT, ZEROS, History, Kind, Stamp, State
from tests.nodes.oracle import Oracle, Violation

UNITS = 4


class Play:
    """A volume of four units and one lane; what the lane does is kept in `image`."""

    def __init__(self) -> None:
        self.oracle = Oracle(UNITS)
        self.lane = History(0, 0, capacity=64)
        self.image = bytearray(ZEROS * UNITS)
        self.tenures = 0
        self.begin()

    def begin(self, node: int = 0) -> None:
        self.tenures += 1
        self.lane = History(node, 0, capacity=64)
        self.lane.reset(self.tenures)
        self.oracle.begin([self.lane])

    def write(self, unit: int, *, durable: bool = False, answered: bool = True) -> int:
        number = self.lane.begin(unit, 1, Kind.WRITE)
        self.put(unit, self.value(number, unit))
        if answered:
            self.lane.end(number, durable=durable)
        return number

    def flush(self) -> None:
        self.lane.flush_done(self.lane.answered)

    def value(self, number: int, unit: int) -> bytes:
        return self.lane.value(number, unit, Kind.WRITE)

    def put(self, unit: int, data: bytes) -> None:
        self.image[unit * UNIT : (unit + 1) * UNIT] = data

    def next_holder(self) -> None:
        cut = self.oracle.cut()
        self.oracle.next_holder_reads(bytes(self.image), cut, "the next holder")


@pytest.fixture
def play() -> Play:
    return Play()


def test_the_next_holder_may_find_any_write_since_the_last_flush(play: Play) -> None:
    play.write(0)
    play.flush()
    values = [play.value(play.write(0), 0) for _ in range(2)]
    play.write(1)
    play.put(0, values[0])
    play.put(1, ZEROS)
    play.next_holder()


@pytest.mark.parametrize("durable", [False, True])
def test_what_was_flushed_must_be_there(play: Play, durable: bool) -> None:
    first = play.value(play.write(0), 0)
    play.write(0, durable=durable)
    if not durable:
        play.flush()
    play.put(0, first)
    with pytest.raises(Violation, match=r"unit 0 shows .* operation 0, .* operation 1"):
        play.next_holder()


def test_a_write_that_nobody_sent_is_found(play: Play) -> None:
    play.put(2, Stamp(9, 1, 0, 0, 2).to_bytes())
    with pytest.raises(Violation, match="nobody may have changed it: allowed: zeros"):
        play.next_holder()


def test_a_torn_unit_is_found(play: Play) -> None:
    old, new = (play.value(play.write(0), 0) for _ in range(2))
    play.put(0, old[:256] + new[256:])
    with pytest.raises(Violation, match="torn"):
        play.next_holder()


def test_a_unit_in_the_wrong_place_is_found(play: Play) -> None:
    number = play.write(0)
    play.write(1)
    play.put(1, play.value(number, 0))
    with pytest.raises(Violation, match="unit 1"):
        play.next_holder()


def test_a_late_write_of_the_old_holder_is_found(play: Play) -> None:
    play.write(0)
    play.flush()
    play.next_holder()
    late = play.value(play.write(0), 0)
    play.begin(node=1)
    play.put(0, late)
    with pytest.raises(Violation, match="tenure 1 of node 0"):
        play.oracle.holder_reads(bytes(play.image), "later")


def test_what_was_sent_after_the_take_over_may_not_be_found_at_once(play: Play) -> None:
    cut = play.oracle.cut()
    play.write(0)
    with pytest.raises(Violation):
        play.oracle.next_holder_reads(bytes(play.image), cut, "the next holder")


def test_unflushed_writes_that_were_lost_stay_lost(play: Play) -> None:
    value = play.value(play.write(0), 0)
    play.put(0, ZEROS)
    play.next_holder()
    play.begin(node=1)
    play.put(0, value)
    with pytest.raises(Violation):
        play.oracle.holder_reads(bytes(play.image), "later")


def test_a_flush_answered_later_must_cover_what_was_found(play: Play) -> None:
    play.write(0)
    play.put(0, ZEROS)
    play.next_holder()
    play.flush()
    with pytest.raises(Violation, match="unit 0 shows zeros"):
        play.oracle.judge_again("after it went on")


def test_no_flush_may_cover_what_was_sent_after_the_take_over(play: Play) -> None:
    play.next_holder()
    play.write(0)
    play.flush()
    with pytest.raises(Violation, match="when the volume was another's"):
        play.oracle.judge_again("after it went on")


def test_a_lane_that_runs_is_judged_when_it_has_ended(play: Play) -> None:
    play.lane.state = State.RUNNING
    play.next_holder()
    play.write(0, durable=True)
    play.oracle.judge_again("while it runs")
    play.lane.fail(5)
    with pytest.raises(Violation):
        play.oracle.judge_again("after it ended")


def test_the_holder_reads_what_was_written_last(play: Play) -> None:
    old = play.value(play.write(0), 0)
    play.write(0)
    play.oracle.holder_reads(bytes(play.image), "at rest")
    play.put(0, old)
    with pytest.raises(Violation, match="operation 0"):
        play.oracle.holder_reads(bytes(play.image), "at rest")


def test_a_reader_may_miss_what_was_flushed_after_it_came(play: Play) -> None:
    play.write(0)
    play.flush()
    before = play.oracle.told()
    old = bytes(play.image)
    play.write(0, durable=True)
    play.oracle.reader_reads(old, before, play.oracle.cut(), "a reader")
    with pytest.raises(Violation):
        now = play.oracle.told()
        play.oracle.reader_reads(old, now, play.oracle.cut(), "a reader")


def test_a_reader_may_meet_a_write_half_way(play: Play) -> None:
    before = play.oracle.told()
    old = bytes(play.image)
    play.write(0)
    mixed = bytes(play.image[:256]) + old[256:]
    play.oracle.reader_reads(mixed, before, play.oracle.cut(), "a reader")
    with pytest.raises(Violation):
        foreign = b"x" * 8 + mixed[8:]
        play.oracle.reader_reads(foreign, before, play.oracle.cut(), "a reader")


def test_settled_units_are_the_ground_of_the_next_tenure(play: Play) -> None:
    play.write(3)
    play.flush()
    play.oracle.settle(bytes(play.image))
    play.begin()
    play.next_holder()
    play.begin(node=1)
    play.put(3, ZEROS)
    with pytest.raises(Violation, match="unit 3 shows zeros"):
        play.oracle.holder_reads(bytes(play.image), "later")
