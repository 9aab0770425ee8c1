# SPDX-License-Identifier: Apache-2.0
"""A node with its client processes: a hand, and writers whose lanes make the load."""

from __future__ import annotations

import contextlib
import random

from tests.helpers.cluster import Node, until
from tests.nodes.hand import Hand
from tests.nodes.history import History, State
from tests.nodes.process import Process, Refused
from tests.nodes.writer import Writer

WRITERS = 2
LANES_EACH = 2
LANES = WRITERS * LANES_EACH


class Team:
    """One node and who works on it.

    Args:
        node: running.
        number: of the node.
        volume: name of the volume.
        blocks: of the volume.
    """

    def __init__(self, node: Node, number: int, volume: str, blocks: int) -> None:
        self.node = node
        self.number = number
        self._volume = volume
        self._blocks = blocks
        self.histories = [History(number, lane) for lane in range(LANES)]
        self.hand: Process
        self.writers: list[Process] = []
        self.hire()

    def __str__(self) -> str:
        return self.node.name

    def hire(self) -> None:
        """Start the client processes."""
        home, name = self.node.home, self.node.name
        self.hand = Process(f"hand of {name}", lambda: Hand(home, self._volume))
        self.writers = [self._writer(index) for index in range(WRITERS)]

    def dismiss(self) -> None:
        """End the client processes, whatever they do."""
        for process in (self.hand, *self.writers):
            process.kill()
        for history in self.histories:
            if history.state == State.RUNNING:
                history.state = State.KILLED

    def kill(self) -> None:
        """End the node and its clients at once."""
        self.node.kill()
        self.dismiss()

    def restart(self) -> None:
        """Start a killed node again."""
        self.node.start()
        self.hire()

    def begin(self, tenure: int, rng: random.Random, pace: int) -> None:
        """Open the volume in all writers and let the lanes run."""
        self.reset(tenure)
        for writer in self.writers:
            writer.ask("open", rng.random() < 0.3)
        for writer in self.writers:
            writer.answer()
        self.go(rng, pace)

    def reset(self, tenure: int) -> None:
        """Forget what the lanes did."""
        for history in self.histories:
            history.reset(tenure)

    def go(self, rng: random.Random, pace: int) -> None:
        """Let the lanes run."""
        for writer in self.writers:
            writer.call("go", rng.getrandbits(32), pace)

    def work(self, operations: int) -> None:
        """Wait until the lanes have done so many operations more, or have ended."""
        goal = self._answered() + operations
        until(
            lambda: self._answered() >= goal or not self.running,
            f"{operations} operations on {self}",
        )

    @property
    def running(self) -> bool:
        """True while a lane runs."""
        return any(h.state == State.RUNNING for h in self.histories)

    @property
    def failed(self) -> list[History]:
        """The lanes that were answered with an error."""
        return [h for h in self.histories if h.state == State.FAILED]

    def halt(self) -> None:
        """Stop the lanes; what they sent is answered."""
        for writer in self.writers:
            writer.ask("halt")
        for writer in self.writers:
            writer.answer()
        self.check()

    def check(self) -> None:
        """No lane may have read what it had not written."""
        for history in self.histories:
            assert history.state != State.WRONG, (
                f"lane {history.lane} of {self} read what it had not written"
            )

    def close(self, *, lost: bool = False) -> None:
        """Close the volume everywhere; the hand last.

        Args:
            lost: it is another's: the close may end with an error.
        """
        for process in (*self.writers, self.hand):
            try:
                process.call("close")
            except Refused:
                if not lost:
                    raise

    def close_lost(self) -> list[History]:
        """Close what may be lost; the lanes of all whom the close told nothing."""
        untold = []
        for index, writer in enumerate(self.writers):
            try:
                writer.call("close")
            except Refused:
                continue
            untold += self.histories[index * LANES_EACH : (index + 1) * LANES_EACH]
        with contextlib.suppress(Refused):
            self.hand.call("close")
        return untold

    def _answered(self) -> int:
        return sum(h.answered for h in self.histories)

    def _writer(self, index: int) -> Process:
        mine = self.histories[index * LANES_EACH : (index + 1) * LANES_EACH]

        def make() -> Writer:
            return Writer(self.node.home, self._volume, mine, LANES, self._blocks)

        return Process(f"writer {index} of {self.node.name}", make)
