# SPDX-License-Identifier: Apache-2.0
"""Random rounds on a cluster: who holds the volume loses it in one of many ways.

The store is a directory, so a node that is cut off from it is one whose blockers are
stopped: nothing of it reaches the store, and nothing tells it so.  A network namespace
would add nothing to that.

Between rounds one node holds the volume and its lanes are at work.  A round ends with
the lanes at rest and the whole volume read and judged.
"""

from __future__ import annotations

import collections
import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence

from archipelago.settings import ROLES
from tests.helpers.cluster import Cluster, NeverHappened, until
from tests.nodes.history import UNIT, ZEROS, Stamp
from tests.nodes.oracle import Oracle, Violation
from tests.nodes.process import Refused
from tests.nodes.pulse import Pulse
from tests.nodes.team import Team
from tests.nodes.writer import BLOCK_UNITS

VOLUME = "v"
KEPT = "kept"
BLOCKS = 24
BLOCK_BYTES = BLOCK_UNITS * UNIT
SIZE = BLOCKS * BLOCK_BYTES
#: How long a take-over waits for the lock of a paused process before that goes on [s].
PATIENCE = 10.0
#: What a lane may be told when the lease is gone: EIO, and ESTALE through the segment.
LOST = (errno.EIO, errno.ESTALE)
#: The part of a lease's life for which the machine must have stood still in a round in
#: which a lease is lost though nobody took it.
STALL = 0.3
#: What a round may be, as often as it is named.
EVENTS = (
    *(2 * ["hand_over"]),
    *(2 * ["die"]),
    "reborn",
    *(5 * ["pause"]),
    *(3 * ["break_lease"]),
    "suspend",
    *(2 * ["peer_dies"]),
    "store_away",
)


class Rounds:
    """The driver.

    Args:
        cluster: two or three running nodes.
        rng: decides everything.
        say: gets a line for each action.
        events: what a round may be.
        clocks: how far the clock of each node is ahead [s].
    """

    def __init__(
        self,
        cluster: Cluster,
        rng: random.Random,
        say: Callable[[str], None],
        events: Sequence[str] = EVENTS,
        clocks: Sequence[int] = (),
    ) -> None:
        self._events = events
        self.cluster = cluster
        self.rng = rng
        self.counts: collections.Counter[str] = collections.Counter()
        self._say = say
        self._apart = cluster.nodes[0].instance.settings["placement"] == "apart"
        self.oracle = Oracle(BLOCKS * BLOCK_UNITS)
        self._tenure = 0
        self._fence = 0
        self._tail = 0
        self.teams = [
            Team(node, number, VOLUME, BLOCKS)
            for number, node in enumerate(cluster.nodes)
        ]
        self.holder = self.teams[0]
        self._kept = b""
        self._ttl = float(cluster.nodes[0].instance.settings["lease_ttl"])
        self._pulse = Pulse()
        self._clocks = clocks or [0] * len(self.teams)

    # ---- the frame -------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the volume and a snapshot that all nodes keep open."""
        first = self.holder
        first.hand.call("create", SIZE, BLOCK_BYTES)
        self._fence = first.hand.call("open")
        self._go_on(first, opened=False)
        first.work(200)
        self._rest()
        self._kept = first.hand.call("read", SIZE)
        first.hand.call("snapshot", KEPT)
        for team in self.teams:
            team.hand.call("keep_open", KEPT)
        self._go_on(first)

    def round(self) -> None:
        """One round."""
        self._pulse.begin()
        rng = self.rng
        holder = self.holder
        holder.work(rng.randint(1, 250))
        if rng.random() < 0.4:
            self._read_elsewhere()
        if rng.random() < 0.3:
            self._change_header()
        other = rng.choice([team for team in self.teams if team is not holder])
        name = rng.choice(self._events)
        self.counts[name] += 1
        self._note(f"{name}: {holder} -> {other}")
        getattr(self, name)(holder, other)
        self.holder.work(rng.randint(1, 150))
        self._rest()
        if rng.random() < 0.25:
            self._look_at_a_snapshot()
        if rng.random() < 0.5:
            self._look_at_what_is_kept()
        self._go_on(self.holder)

    def finish(self) -> None:
        """Close the volume; nobody holds it then."""
        self.holder.work(10)
        self._rest()
        self.holder.close()
        for team in self.teams:
            until(lambda t=team: t.hand.call("info").lease is None, "it is given back")  # type: ignore[misc]

    def dismiss(self) -> None:
        """End all client processes."""
        self._pulse.stop()
        for team in self.teams:
            team.dismiss()

    # ---- ways to lose a volume -------------------------------------------------------

    def hand_over(self, a: Team, b: Team) -> None:
        """A closes, b opens at once."""
        a.halt()
        if a.failed:
            self._lost_by_itself(a)
            return
        a.close()
        # The server closes an NBD client's volume when the client has long gone.
        until(lambda: b.hand.call("info").lease is None, f"{a} gives the lease back")
        self._closed_well(a)
        self._take(b)

    def die(self, a: Team, b: Team) -> None:
        """All processes of a are killed; b opens at once, and a comes back."""
        a.kill()
        self._take(b)
        b.work(self.rng.randint(1, 80))
        a.restart()
        a.hand.call("keep_open", KEPT)
        self._must_not_have(a)

    def reborn(self, a: Team, b: Team) -> None:
        """All processes of a are killed; a starts again and has its lease at once."""
        a.kill()
        a.restart()
        a.hand.call("keep_open", KEPT)
        if self.rng.random() < 0.5:
            # Nothing of it is left: b may have it as well.
            self._take(b)
        else:
            self._take(a, again=True)

    def peer_dies(self, a: Team, b: Team) -> None:
        """One process of a is killed and comes back; b may be there before it."""
        role = self.rng.choice(ROLES)
        self._note(f"kill {role} of {a}")
        a.node.kill_peer(role)
        if self.rng.random() < 0.4 and self._is_faster(b):
            # A client whose connection broke is told who has the volume.
            self._too_late(a, errno.ECONNRESET, errno.EBUSY)
            return
        a.work(60)
        if not a.failed:
            return
        # An NBD client must connect again; another one may be told that it is not
        # known what was flushed.  Nothing that was answered is lost, flushed or not.
        a.halt()
        bad = {h.error for h in a.failed} - {*LOST, errno.ECONNRESET}
        if bad or (self._apart and role != "vlmcd"):
            raise Violation(f"{a} lost {role}, and its users see it: {self._ends(a)}")
        a.close(lost=True)
        self._closed_well(a)
        self._take(a, again=True)

    def pause(self, a: Team, b: Team) -> None:
        """Processes of a are stopped; b takes over; a goes on and is too late."""
        rng = self.rng
        roles, expires = self._whom_to_stop()
        by_time = expires and rng.random() < 0.5
        self._note(f"stop {roles or 'all'} of {a}, {'wait' if by_time else 'break'}")
        a.node.pause(roles)
        if not by_time:
            b.hand.call("break_lease")
        self._take(b, wait=by_time, paused=a)
        b.work(rng.randint(1, 80))
        if rng.random() < 0.4:
            self._rest()
            self._go_on(b)
        if rng.random() < 0.35:
            self._once_more(a, b)
        self._note(f"{a} goes on")
        a.node.resume()
        self._too_late(a)

    def break_lease(self, a: Team, b: Team) -> None:
        """The lease is broken while a writes at full speed."""
        opens_at_once = self.rng.random() < 0.6
        b.hand.call("break_lease")
        if opens_at_once:
            self._take(b)
            b.work(self.rng.randint(1, 80))
            self._too_late(a)
            return
        self._await_end(a)
        a.close(lost=True)
        self._take(a if self.rng.random() < 0.5 else b)

    def suspend(self, a: Team, b: Team) -> None:
        """A is stopped for longer than its lease, and goes on: nobody came."""
        a.node.pause()
        until(lambda: b.hand.call("info").lease is None, "the lease expires")
        if self.rng.random() < 0.4:
            self._note(f"{b} was there meanwhile")
            self._take(b)
            self._rest()
            b.close()
            a.node.resume()
            self._await_end(a)
            a.close(lost=True)
            self.oracle.judge_again(f"after {a} went on")
            self._take(self.rng.choice([a, b]), settled=True)
            return
        a.node.resume()
        a.work(60)
        if a.failed:
            raise Violation(f"{a} did not go on after a pause: {self._ends(a)}")

    def store_away(self, a: Team, b: Team) -> None:
        """The store is away for longer than a's lease, and a's peers die meanwhile.

        Nobody takes the volume.  What was flushed is there afterwards; what was only
        answered is there too, unless its client was told of a loss.
        """
        a.node.pause(("blockerb", "blockerm"))
        until(lambda: b.hand.call("info").lease is None, "the lease expires")
        # At any moment of giving the volume up, and after it.
        end = time.monotonic() + self.rng.uniform(0, self._ttl / 2)
        until(lambda: time.monotonic() > end, "the store is away a little longer")
        dying = self.rng.choice([("vlmcd",), ROLES])
        self._note(f"kill {', '.join(dying)} of {a}, and its store is there again")
        peers = a.node.peers()
        for pid in {peers[role] for role in dying}:
            os.kill(pid, signal.SIGKILL)
        a.node.resume()
        a.work(60)
        if not a.failed:
            return
        a.halt()
        bad = {h.error for h in a.failed} - {*LOST, errno.ECONNRESET}
        if bad:
            raise Violation(f"{a} lost its store, and its users see {self._ends(a)}")
        untold = [h for h in a.close_lost() if h.error not in LOST]
        for history in untold:
            history.flush_done(history.answered)
        self._note(f"{len(a.histories) - len(untold)} lanes were told of a loss")
        self._take(a, again=True)

    # ---- what must be found ----------------------------------------------------------

    def forge_late_write(self, a: Team, _: Team) -> None:
        """The test itself writes what an old holder might have written."""
        self._forge(a, lambda unit: Stamp(0, 77, 0, 0, unit).to_bytes())

    def forge_lost_write(self, a: Team, _: Team) -> None:
        """The test itself takes a flushed write away."""
        self._forge(a, lambda unit: ZEROS)

    def forge_lost_lease(self, a: Team, b: Team) -> None:
        """The test itself takes the lease away; the round knows of nobody who did."""
        b.hand.call("break_lease")
        until(lambda: not a.running, f"the lanes of {a} end")

    def _forge(self, a: Team, make: Callable[[int], bytes]) -> None:
        a.halt()
        a.hand.call("flush")
        image = a.hand.call("read", SIZE)
        self.oracle.holder_reads(image, "before the forgery")
        units = [u for u in range(len(image) // UNIT) if image[u * UNIT] != 0]
        extents = sorted((self.cluster.data / "extents").glob("*/*.0"))
        for path in reversed(extents):
            with path.open("r+b", buffering=0) as file:
                for unit in units:
                    file.seek(unit * UNIT)
                    if file.read(UNIT) == image[unit * UNIT : (unit + 1) * UNIT]:
                        file.seek(unit * UNIT)
                        file.write(make(unit))
        self.oracle.holder_reads(a.hand.call("read", SIZE), "after the forgery")
        raise AssertionError("the forgery was not found")

    # ---- steps -----------------------------------------------------------------------

    def _take(
        self,
        team: Team,
        *,
        wait: bool = False,
        again: bool = False,
        paused: Team | None = None,
        settled: bool = False,
        opened: int = 0,
    ) -> None:
        """Open on a node, judge what it finds, and set its lanes to work.

        Args:
            team: who opens.
            wait: another's lease must expire first.
            again: it takes its own lease back.
            paused: whose stopped processes may hold a lock just now.
            settled: the volume was closed at rest, after it had been judged.
            opened: with this fence the team has it open already.
        """
        fence = opened or self._open(team, wait=wait, paused=paused)
        if fence < self._fence or (fence == self._fence and not again):
            raise Violation(f"{team} has fence {fence} after {self._fence}")
        self._fence = fence
        started = self.oracle.cut()
        image = team.hand.call("read", SIZE)
        when = f"{team} opened with fence {fence}"
        self._note(when)
        if settled:
            self.oracle.begin([])
        self.oracle.next_holder_reads(image, started, when)
        self.oracle.judge_again(when)
        self._go_on(team, opened=False)

    def _is_faster(self, b: Team) -> bool:
        """Try once to open what its holder may just be taking back."""
        try:
            fence = int(b.hand.call("open"))
        except Refused as error:
            if error.kind != "LeaseHeld":
                raise Violation(f"{b} is told {error}") from error
            return False
        self._take(b, opened=fence)
        return True

    def _open(self, team: Team, *, wait: bool, paused: Team | None) -> int:
        while True:
            team.hand.ask("open")
            if paused is not None and not team.hand.answers_within(PATIENCE):
                # It was stopped in the instant in which a lease or header changes.
                self.counts["held up"] += 1
                self._note(f"{paused} holds {team} up, and goes on")
                paused.node.resume()
            try:
                return int(team.hand.answer())
            except Refused as error:
                if not wait or error.kind != "LeaseHeld":
                    raise Violation(f"{team} cannot open: {error}") from error

    def _go_on(self, team: Team, *, opened: bool = True) -> None:
        """Set the lanes to work; `opened`: its writers have the volume open."""
        self._tenure += 1
        self.holder = team
        pace = self.rng.choice([3, 10, 40])
        self.oracle.begin(team.histories)
        if opened:
            team.reset(self._tenure)
            team.go(self.rng, pace)
        else:
            team.begin(self._tenure, self.rng, pace)

    def _rest(self) -> None:
        """Stop the holder's lanes, and judge the whole volume."""
        holder = self.holder
        holder.halt()
        if holder.failed:
            self._lost_by_itself(holder)
            holder.halt()
            if holder.failed:
                raise Violation(f"{holder} cannot hold: {self._ends(holder)}")
        image = holder.hand.call("read", SIZE)
        self.oracle.holder_reads(image, f"{holder} at rest")
        holder.hand.call("flush")
        self.oracle.settle(image)
        self._image = image

    def _lost_by_itself(self, a: Team) -> None:
        """A lease may be lost on a machine that is too busy to renew it in time."""
        stalled = self._pulse.longest()
        self._note(
            f"{a} lost the volume by itself: {self._ends(a)}; the machine stood still "
            f"for {stalled:.3f} s"
        )
        if stalled < self._ttl * STALL:
            raise Violation(
                f"{a} lost the volume, and nobody took it: {self._ends(a)}; the "
                f"machine stood still for {stalled:.3f} s at most"
            )
        self.counts["lost by itself"] += 1
        self._await_end(a)
        a.close(lost=True)
        self._take(a, again=True)

    def _once_more(self, a: Team, b: Team) -> None:
        """While a is stopped, b loses the volume too."""
        others = [team for team in self.teams if team is not a]
        c = self.rng.choice(others)
        if c is b:
            self._note(f"{b} is killed, comes back and has it again")
            b.kill()
            b.restart()
            b.hand.call("keep_open", KEPT)
            self._take(b, again=True)
        else:
            self._note(f"{b} is killed, {c} takes over")
            b.kill()
            self._take(c)
            b.restart()
            b.hand.call("keep_open", KEPT)
        c.work(self.rng.randint(1, 50))

    def _too_late(self, a: Team, *also: int) -> None:
        """A goes on without the lease: whatever it does must not count.

        Args:
            a: the old holder.
            also: what its lanes may be told besides that it is lost.
        """
        self._await_end(a, *also)
        if self._respects(a):
            stolen = a.hand.call("try_changes", SIZE // 2)
            if stolen:
                raise Violation(f"{a} could {', '.join(stolen)} without the lease")
        self._rest()
        a.close(lost=True)
        self.oracle.judge_again(f"after {a} went on")
        self._must_not_have(a)
        self._go_on(self.holder)

    def _await_end(self, a: Team, *also: int) -> None:
        """All lanes of who lost the volume are told so."""
        try:
            until(lambda: not a.running, f"the lanes of {a} end")
        except NeverHappened as error:
            raise Violation(str(error)) from error
        a.check()
        a.halt()
        for history in a.histories:
            if history.error not in (*LOST, *also) and not history.full:
                raise Violation(
                    f"{a} was not told that the volume is lost: {self._ends(a)}"
                )

    def _must_not_have(self, team: Team) -> None:
        """Another holds the volume: a node that asks is told so."""
        if not self._respects(team):
            return

        def refused() -> bool:
            try:
                team.hand.call("open")
            except Refused as error:
                # The last NBD client's volume is closed when that client has long gone.
                if error.kind not in ("LeaseHeld", "VolumeBusy"):
                    raise Violation(f"{team} is told {error}") from error
                return error.kind == "LeaseHeld"
            raise Violation(f"{team} could open what {self.holder} holds")

        until(refused, f"{team} is told who has it")

    def _respects(self, team: Team) -> bool:
        """By the clock of a node the lease of the holder is not over."""
        ahead = self._clocks[team.number] - self._clocks[self.holder.number]
        return ahead < self._ttl / 2

    def _closed_well(self, a: Team) -> None:
        """A close that is answered well has flushed everything."""
        for history in a.histories:
            history.flush_done(history.answered)

    def _whom_to_stop(self) -> tuple[Iterable[str], bool]:
        """Roles to stop, and whether the lease then expires."""
        choices: list[tuple[tuple[str, ...], bool]] = [((), True)]
        if self._apart:
            choices += [
                (("blockerb",), False),
                (("blockerb", "blockerm"), True),
                (("blockerm",), True),
                (("mapperd",), True),
                (("mapperd", "vlmcd"), True),
                (("vlmcd",), False),
                (("blockerb", "vlmcd"), False),
            ]
        else:
            choices.append((("vlmcd",), True))
        return self.rng.choice(choices)

    # ---- looks -----------------------------------------------------------------------

    def _read_elsewhere(self) -> None:
        """Read the volume on a node that does not hold it, while it is written to."""
        holder = self.holder
        reader = self.rng.choice([team for team in self.teams if team is not holder])
        before = self.oracle.told()
        image = reader.hand.call("read_once", VOLUME, SIZE)
        if holder.running:
            started = self.oracle.cut()
            when = f"{reader} reads what {holder} holds"
            self.oracle.reader_reads(image, before, started, when)

    def _change_header(self) -> None:
        """Let the holder change its header under load: a snapshot, or the size."""
        hand = self.holder.hand
        try:
            if self.rng.random() < 0.5:
                self._tail = self.rng.randrange(4)
                hand.call("resize", SIZE + self._tail * BLOCK_BYTES)
            else:
                hand.call("snapshot", "passing")
                self._remove(self.holder, "passing")
        except Refused as error:
            if not self.holder.failed:
                raise Violation(f"the holder cannot change it: {error}") from error

    def _look_at_a_snapshot(self) -> None:
        """A fresh snapshot, and a clone of it elsewhere, are the settled volume."""
        holder = self.holder
        other = self.rng.choice(self.teams)
        holder.hand.call("snapshot", "fresh")
        other.hand.call("clone", "fresh", "fresh-clone")
        for name in ("fresh", "fresh-clone"):
            if other.hand.call("read_once", name, SIZE) != self._image:
                raise Violation(f'"{name}" on {other} is not what {holder} has')
        for name in ("fresh-clone", "fresh"):
            self._remove(other, name)

    def _remove(self, team: Team, name: str) -> None:
        """Remove what no client has, once no node merges its tables any more."""

        def removed() -> bool:
            try:
                team.hand.call("remove", name)
            except Refused as error:
                if error.kind != "LeaseHeld":
                    raise
                return False
            return True

        until(removed, f'"{name}" is removed on {team}')

    def _look_at_what_is_kept(self) -> None:
        """The snapshot that is open everywhere stays what it was."""
        for team in self.teams:
            if team.hand.call("read_kept", SIZE) != self._kept:
                raise Violation(f'"{KEPT}" on {team} changed')

    # ---- words -----------------------------------------------------------------------

    def _note(self, text: str) -> None:
        self._say(text)

    def _ends(self, team: Team) -> str:
        return ", ".join(
            f"lane {h.lane} {h.state.name} {h.error}" for h in team.histories
        )
