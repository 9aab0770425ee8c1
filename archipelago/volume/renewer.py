# SPDX-License-Identifier: Apache-2.0
"""Keeps this instance's presence alive, and says at once when a lease is lost.

One thread with a port of its own, which never waits for any single answer: the store
may hang, vlmcd may be away, and still the presence is renewed or given up in finite
time, and vlmcd hears of it.  Nothing else travels this way, so that bulk work cannot
delay it.

    each third of a life    ACQUIRE PRESENCE                        blockerm
    always one waiting      NOTIFY                                  blockerm
    renewed                 ACQUIRE PRESENCE, arg[1] = deadline     vlmcd
    lost                    RELEASE LEASE, again until it is closed vlmcd

A renewal costs the same with one open volume and with ten thousand.  The leases
themselves are looked at (ACQUIRE LEASE with our fence) when news of them may have been
missed: after a renewal that was granted past the deadline, before vlmcd goes on; and
when another blocker serves, which knows none of them until then.

All leases are lost when another process has this instance's identity, or when the
presence could have run out and the store has been asked for two thirds of a life
without an answer.  The latter is counted in time that this thread has seen pass: a
machine that was suspended asks first.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from archipelago.errors import ArchipelagoError
from archipelago.ids import ObjectId, lease_id, presence_id
from archipelago.messenger import Messenger
from archipelago.volume.incarnation import NS
from archipelago.volume.leases import Held, Leases
from archipelago.volume.presence import Presences, boottime_ns
from xseg import Port, Request
from xseg.constants import (
    PORT_ANY,
    PORT_BLOCKERM,
    PORT_VLMCD,
    ObjectKind,
    Op,
)
from xseg.errors import PortUnbound, SegmentFull, WouldBlock, XsegError
from xseg.payload import Lease

log = logging.getLogger(__name__)

#: Most requests under way, to each of the two receivers.
_DEPTH = 32
#: Pause before a receiver that refused is asked again [s].
_PAUSE = 0.02
#: How long the end waits for renewals that are under way [s].
_STOP_PATIENCE = 2.0
#: Longest sleep while answers are awaited, as a part of a lease's life.
_WATCH = 1 / 20
#: Results that say that the blocker ended with a request.
_DIED = frozenset({-errno.EPIPE, -errno.EOWNERDEAD, -errno.ECANCELED})
_ANY_LEASE = ObjectId(ObjectKind.LEASE, bytes(32))


@dataclass
class _Asked:
    """A request under way."""

    done: Callable[[Request], None]
    port: int
    held: Held | None
    """Whose guard is held until it is answered."""


class Renewer:
    """The thread that keeps one instance's presence.

    Args:
        messenger: of the control half; its segment, and its voice to wake the thread.
        leases: what is held.
        presences: ours is renewed.
        lost: called on this thread with the uuid of a volume and why its lease is lost;
            must not block.
    """

    def __init__(
        self,
        messenger: Messenger,
        leases: Leases,
        presences: Presences,
        lost: Callable[[bytes, str], None],
    ) -> None:
        self._messenger = messenger
        self._leases = leases
        self._presences = presences
        self._presence = presences.instance
        self._lost = lost
        self._ttl_ns = presences.ttl_ns
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="archipelago-leases", daemon=True
        )
        self._port: Port | None = None
        self._under_way: dict[int, _Asked] = {}
        #: leases to be looked at
        self._doubted: deque[tuple[bytes, Held]] = deque()
        #: lost volumes of which vlmcd is to be told next
        self._losses: dict[bytes, None] = {}
        #: the deadline that vlmcd is to be told next, 0: it knows
        self._deadline = 0
        #: when the renewal was asked for that counts once no lease is in doubt; 0: none
        self._trusted_ns = 0
        self._stopped: deque[bytes] = deque()
        self._depth = {PORT_BLOCKERM: 0, PORT_VLMCD: 0}
        self._pause_until: dict[int, float] = {}
        #: when what has no answer yet was asked for, by `_awake_ns`: the presence, by
        #: our uuid, and leases in doubt, by the volume's
        self._asked_since: dict[bytes, int] = {}
        self._awake_ns = 0
        self._next_round_ns = 0
        self._listen_ns = 0
        self._notified = False
        self._appearing = False
        self._doubt_all = False
        self._ask_again: set[bytes] = set()
        self._changed = threading.Condition()
        self._rounds_wanted = 0
        self._rounds_done = 0

    def start(self) -> None:
        """Keep the presence from now on."""
        self._port = self._messenger.segment.bind(PORT_ANY, "leases")
        self._next_round_ns = boottime_ns() + self._ttl_ns // 3
        self._thread.start()

    def stop(self) -> None:
        """Stop keeping; requests under way are awaited for a moment."""
        self._stopping.set()
        if self._port is None:
            return
        self.wake()
        self._thread.join()

    def wake(self) -> None:
        """Look at once at what there is to do."""
        port = self._port
        if port is None or threading.current_thread() is self._thread:
            return
        try:
            self._messenger.call(port.id, Op.PING)
        except (ArchipelagoError, XsegError) as error:
            log.debug("the renewer looks soon: %s", error)

    def say_stopped(self, uuid: bytes) -> None:
        """Tell vlmcd that a volume's I/O was given up, now and until it is closed."""
        self._leases.stop_using(uuid)
        self._stopped.append(uuid)
        self.wake()

    def renew_all(self) -> None:
        """Renew the presence and look at all leases now.

        Returns when each has its answer or is lost.
        """
        with self._changed:
            self._doubt_all = True
            self._rounds_wanted += 1
            wanted = self._rounds_wanted
        self.wake()
        with self._changed:
            self._changed.wait_for(
                lambda: self._rounds_done >= wanted or self._stopping.is_set()
            )

    # ---- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        port = self._port
        assert port is not None
        answering = 0
        while not self._stopping.is_set():
            try:
                answering = self._step(port, answering)
            except Exception:
                log.exception("the presence is looked after again")
                self._stopping.wait(_PAUSE)
        until = time.monotonic() + _STOP_PATIENCE
        while self._guarded() and time.monotonic() < until:
            port.wait(_PAUSE)
            self._reap(port)
        self._reap(port)
        self._answer(port)
        port.unbind()  # a thread that wants to wake us just now is refused
        for held in self._guarded():
            held.guard.release()
        with self._changed:
            self._changed.notify_all()

    def _guarded(self) -> list[Held]:
        return [a.held for a in self._under_way.values() if a.held is not None]

    def _step(self, port: Port, answering: int) -> int:
        """One turn of the loop; returns the number of the round that is under way."""
        self._answer(port)
        self._reap(port)
        while self._stopped:
            self._say_lost(self._stopped.popleft())
        with self._changed:
            wanted = self._rounds_wanted
        if boottime_ns() >= self._next_round_ns or wanted > answering:
            answering = wanted
            self._begin_round()
        self._listen(port)
        self._appear(port)
        self._look(port)
        self._give_up_late()
        if not self._asked_since:
            self._settled()
            with self._changed:
                self._rounds_done = answering
                self._changed.notify_all()
        self._speak(port)
        self._sleep(port)
        return answering

    def _sleep(self, port: Port) -> None:
        before = boottime_ns()
        left = max(0, self._next_round_ns - before)
        if not self._notified:
            left = min(left, max(0, self._listen_ns - before))
        if self._asked_since:
            left = min(left, int(self._ttl_ns * _WATCH))
        waits = self._presence in self._asked_since and not self._appearing
        if waits or self._doubted or self._losses or self._deadline:
            left = min(left, int(_PAUSE * NS))
        port.wait(left / NS)
        self._awake_ns += min(boottime_ns() - before, left)

    # ---- the presence ----------------------------------------------------------------

    def _begin_round(self) -> None:
        self._next_round_ns = boottime_ns() + self._ttl_ns // 3
        self._asked_since.setdefault(self._presence, self._awake_ns)
        with self._changed:
            doubt_all, self._doubt_all = self._doubt_all, False
        if doubt_all:
            self._doubt()
        for uuid, held in self._leases.all():
            if held.stopped:
                self._say_lost(uuid)

    def _appear(self, port: Port) -> None:
        """Renew the presence, unless that is under way or has its answer."""
        asked = self._presence in self._asked_since
        if not asked or self._appearing or self._paused(PORT_BLOCKERM):
            return
        started = boottime_ns()
        self._appearing = self._submit(
            port,
            PORT_BLOCKERM,
            Op.ACQUIRE,
            presence_id(self._presence),
            lambda rq: self._appeared(started, rq),
            inline=self._presences.ask.pack(),
        )

    def _appeared(self, started: int, rq: Request) -> None:
        self._appearing = False
        result = rq.result
        if result == -errno.EBUSY:
            self._asked_since.pop(self._presence, None)
            self._lose_all("another process has the identity of this instance")
            return
        if result < 0:
            log.warning("the presence of this instance waits: %s", _text(result))
            self._pause(PORT_BLOCKERM)
            return
        self._asked_since.pop(self._presence, None)
        if self._presences.granted(started):
            self._deadline = self._presences.deadline_ns()
            return
        gap = started - self._trusted_ns >= self._ttl_ns * 9 // 10
        self._trusted_ns = started
        if gap:
            # Another instance may have taken a lease since the deadline.
            self._doubt()

    def _settled(self) -> None:
        """Everything has its answer: no lease is in doubt."""
        if self._trusted_ns:
            self._presences.trust(self._trusted_ns)
            self._trusted_ns = 0
            self._deadline = self._presences.deadline_ns()

    # ---- leases in doubt -------------------------------------------------------------

    def _doubt(self) -> None:
        for uuid, held in self._leases.all():
            if held.gone:
                continue
            if uuid in self._asked_since:
                self._ask_again.add(uuid)  # an answer under way may be older than this
            else:
                self._asked_since[uuid] = self._awake_ns
                self._doubted.append((uuid, held))

    def _look(self, port: Port) -> None:
        for _ in range(len(self._doubted)):
            if self._paused(PORT_BLOCKERM) or self._depth[PORT_BLOCKERM] >= _DEPTH:
                return
            uuid, held = self._doubted.popleft()
            if held.gone or not held.users:
                self._asked_since.pop(uuid, None)
            elif not held.guard.acquire(blocking=False):
                # Something else is being asked about it.  That may hang, too: the lease
                # has no answer, and is given up when it could be over.
                self._doubted.append((uuid, held))
            elif not self._look_at(port, uuid, held):
                held.guard.release()
                self._doubted.append((uuid, held))

    def _look_at(self, port: Port, uuid: bytes, held: Held) -> bool:
        def done(rq: Request) -> None:
            held.guard.release()
            self._looked_at(uuid, held, rq)

        inline = self._leases.proof(held).pack()
        return self._submit(
            port, PORT_BLOCKERM, Op.ACQUIRE, lease_id(uuid), done, inline, held
        )

    def _looked_at(self, uuid: bytes, held: Held, rq: Request) -> None:
        result = rq.result
        if result in (-errno.EBUSY, -errno.ESTALE):
            self._asked_since.pop(uuid, None)
            self._lose(uuid, held, "its lease was taken by another instance")
        elif result < 0 or uuid in self._ask_again:
            self._ask_again.discard(uuid)
            if result < 0:
                log.warning('the lease of "%s" waits: %s', held.name, _text(result))
                self._pause(PORT_BLOCKERM)
            if uuid in self._asked_since:
                self._doubted.append((uuid, held))
        else:
            self._asked_since.pop(uuid, None)

    # ---- losses ----------------------------------------------------------------------

    def _give_up_late(self) -> None:
        """Lose what could have run out while the store did not answer."""
        if not self._asked_since or not self._presences.could_be_over():
            return
        held_now = dict(self._leases.all())
        for uuid, since in list(self._asked_since.items()):
            held = held_now.get(uuid)
            late = self._awake_ns - since >= self._ttl_ns * 2 // 3
            if uuid == self._presence:
                if late:
                    self._lose_all("the store does not answer")
            elif held is None or held.gone:
                del self._asked_since[uuid]
            elif late:
                del self._asked_since[uuid]
                self._lose(uuid, held, "the store does not answer")

    def _lose_all(self, why: str) -> None:
        for uuid, held in self._leases.all():
            self._lose(uuid, held, why)

    def _lose(self, uuid: bytes, held: Held, why: str) -> None:
        if held.gone:
            return
        held.gone = held.stopped = True
        log.error('the lease of "%s" is lost: %s', held.name, why)
        self._say_lost(uuid)
        self._lost(uuid, why)

    # ---- news from the store ---------------------------------------------------------

    def _listen(self, port: Port) -> None:
        """Have a NOTIFY waiting."""
        if self._notified or boottime_ns() < self._listen_ns:
            return
        self._listen_ns = boottime_ns() + int(_PAUSE * NS)
        self._notified = self._submit(
            port, PORT_BLOCKERM, Op.NOTIFY, _ANY_LEASE, self._notice
        )

    def _notice(self, rq: Request) -> None:
        self._notified = False
        if rq.result < 0:
            if rq.result not in _DIED:
                log.error("no news of leases: %s", _text(rq.result))
                self._listen_ns = boottime_ns() + self._ttl_ns // 3
                return
            # The blocker that serves next knows none of our leases until it is asked.
            log.info("no news of leases for a moment: %s", _text(rq.result))
            self._pause(PORT_BLOCKERM)
            self._doubt()
            return
        uuid = rq.object[1][:16]
        now = Lease.unpack(rq.inline)
        held = dict(self._leases.all()).get(uuid)
        if held is None or (held.lease.fence == now.fence and not now.is_free):
            return
        self._lose(uuid, held, "its lease was broken or taken by another instance")

    # ---- words to vlmcd --------------------------------------------------------------

    def _say_lost(self, uuid: bytes) -> None:
        self._losses[uuid] = None

    def _speak(self, port: Port) -> None:
        # If vlmcd is not there, the one that comes is told by its OPEN.
        deadline, self._deadline = self._deadline, 0
        if deadline:
            target = presence_id(self._presence)
            self._submit(
                port, PORT_VLMCD, Op.ACQUIRE, target, _heard, deadline=deadline
            )
        while self._losses and self._depth[PORT_VLMCD] < _DEPTH:
            uuid = next(iter(self._losses))
            del self._losses[uuid]
            # Not about what was closed meanwhile: it may be open anew.
            self._leases.while_held(uuid, partial(self._say, port, uuid))

    def _say(self, port: Port, uuid: bytes, held: Held) -> None:
        if held.stopped:
            self._submit(port, PORT_VLMCD, Op.RELEASE, lease_id(uuid), _heard)

    # ---- requests --------------------------------------------------------------------

    def _submit(
        self,
        port: Port,
        dst: int,
        op: Op,
        target: ObjectId,
        done: Callable[[Request], None],
        inline: bytes = b"",
        held: Held | None = None,
        deadline: int = 0,
    ) -> bool:
        """Send a request; false if it cannot be sent now."""
        try:
            rq = port.request()
        except (SegmentFull, WouldBlock):
            self._pause(dst)
            return False
        try:
            rq.op = op
            rq.set_object(target.kind, target.id)
            rq.inline[: len(inline)] = inline
            rq.set_arg(1, deadline)
            port.submit(rq, dst)
        except (PortUnbound, SegmentFull, WouldBlock):
            rq.free()
            self._pause(dst)
            return False
        self._under_way[rq.index] = _Asked(done, dst, held)
        self._depth[dst] += 1
        return True

    def _answer(self, port: Port) -> None:
        """Answer the threads that woke this one."""
        while (rq := port.accept()) is not None:
            port.complete(rq, 0)

    def _reap(self, port: Port) -> None:
        while (rq := port.reap()) is not None:
            asked = self._under_way.pop(rq.index)
            self._depth[asked.port] -= 1
            try:
                asked.done(rq)
            finally:
                rq.free()

    def _pause(self, dst: int) -> None:
        self._pause_until[dst] = time.monotonic() + _PAUSE

    def _paused(self, dst: int) -> bool:
        return time.monotonic() < self._pause_until.get(dst, 0.0)


def _heard(rq: Request) -> None:
    """Vlmcd has the word, or has no such volume open."""


def _text(result: int) -> str:
    return errno.errorcode.get(-result, str(result))
