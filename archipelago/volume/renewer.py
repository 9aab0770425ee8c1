# SPDX-License-Identifier: Apache-2.0
"""Keeps leases alive, and says at once when one is lost.

One thread with a port of its own, which never waits for any single answer: the store
may hang, vlmcd may be away, and still each lease is renewed or given up in finite time,
and vlmcd hears of it.

    each third of a life    ACQUIRE with our fence      blockerm
    always one waiting      NOTIFY                      blockerm
    renewed                 ACQUIRE, arg[1] = deadline  vlmcd
    lost                    RELEASE, at once and again until it is closed   vlmcd

A lease is lost when the store says that it is another's, or when it could have run out
and the store has been asked for two thirds of a life without an answer.  The latter is
counted in time that this thread has seen pass: a machine that was suspended asks first.
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
from archipelago.volume.leaserecord import NS, renewal
from archipelago.volume.leases import Held, Leases, boottime_ns, deadline_of
from archipelago.volume.presence import Presences
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
    """The thread that keeps one instance's leases.

    Args:
        messenger: of the control half; its segment, and its voice to wake the thread.
        leases: what is held.
        presences: this instance's is renewed.
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
        self._lost = lost
        self._ttl_ns = leases.ttl_ns
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="archipelago-leases", daemon=True
        )
        self._port: Port | None = None
        self._under_way: dict[int, _Asked] = {}
        self._renewals: deque[tuple[bytes, Held]] = deque()
        #: what vlmcd is to be told next: an op and its deadline, by volume
        self._words: dict[bytes, tuple[Op, int]] = {}
        self._stopped: deque[bytes] = deque()
        self._depth = {PORT_BLOCKERM: 0, PORT_VLMCD: 0}
        self._pause_until: dict[int, float] = {}
        #: when a lease that has no answer yet was asked for, by `_awake_ns`
        self._asked_since: dict[bytes, int] = {}
        self._awake_ns = 0
        self._next_round_ns = 0
        self._listen_ns = 0
        self._notified = False
        self._appearing = False
        self._changed = threading.Condition()
        self._rounds_wanted = 0
        self._rounds_done = 0

    def start(self) -> None:
        """Keep leases from now on."""
        self._port = self._messenger.segment.bind(PORT_ANY, "leases")
        self._next_round_ns = boottime_ns() + self._ttl_ns // 3
        self._thread.start()

    def stop(self) -> None:
        """Stop keeping; leases that are held run out, or end with this process.

        Renewals under way are awaited for a moment; one that comes later than that
        finds its fence given back.
        """
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
            log.debug("the leases are looked at soon: %s", error)

    def say_stopped(self, uuid: bytes) -> None:
        """Tell vlmcd that a volume's I/O was given up, now and until it is closed."""
        self._leases.stop_using(uuid)
        self._stopped.append(uuid)
        self.wake()

    def renew_all(self) -> None:
        """Renew all leases now; returns when each has its answer or is lost."""
        with self._changed:
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
                log.exception("the leases are looked at again")
                self._stopping.wait(_PAUSE)
        until = time.monotonic() + _STOP_PATIENCE
        while self._guarded() and time.monotonic() < until:
            port.wait(_PAUSE)
            self._reap(port)
        self._reap(port)
        self._answer(port)
        port.unbind()  # refuses who wants to wake us just now
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
            self._begin_round(port)
        self._listen(port)
        self._ask(port)
        self._give_up_late()
        if not self._asked_since:
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
        if self._renewals or self._words:
            left = min(left, int(_PAUSE * NS))
        port.wait(left / NS)
        self._awake_ns += min(boottime_ns() - before, left)

    def _appeared(self, rq: Request) -> None:
        self._appearing = False
        if rq.result < 0:
            log.warning("the presence is not renewed: %s", _text(rq.result))

    # ---- renewing --------------------------------------------------------------------

    def _begin_round(self, port: Port) -> None:
        self._next_round_ns = boottime_ns() + self._ttl_ns // 3
        if not self._appearing:
            target = presence_id(self._presences.instance)
            inline = self._presences.ask.pack()
            self._appearing = self._submit(
                port, PORT_BLOCKERM, Op.ACQUIRE, target, self._appeared, inline=inline
            )
        for uuid, held in self._leases.all():
            if held.stopped:
                self._say_lost(uuid)
            if not held.gone and uuid not in self._asked_since:
                self._asked_since[uuid] = self._awake_ns
                self._renewals.append((uuid, held))

    def _ask(self, port: Port) -> None:
        for _ in range(len(self._renewals)):
            if self._paused(PORT_BLOCKERM) or self._depth[PORT_BLOCKERM] >= _DEPTH:
                return
            uuid, held = self._renewals.popleft()
            if held.gone or not held.users:
                self._asked_since.pop(uuid, None)
            elif not held.guard.acquire(blocking=False):
                # Something else is being asked about it.  That may hang, too: the lease
                # has no answer, and is given up when it could be over.
                self._renewals.append((uuid, held))
            elif not self._renew(port, uuid, held):
                held.guard.release()
                self._renewals.append((uuid, held))

    def _renew(self, port: Port, uuid: bytes, held: Held) -> bool:
        ask = self._leases.ask
        if not self._leases.is_presence(uuid):
            ask = renewal(ask, held.lease.fence)
        started = boottime_ns()

        def done(rq: Request) -> None:
            held.guard.release()
            self._renewed(uuid, held, started, rq)

        target, inline = lease_id(uuid), ask.pack()
        return self._submit(
            port, PORT_BLOCKERM, Op.ACQUIRE, target, done, inline=inline, held=held
        )

    def _renewed(self, uuid: bytes, held: Held, started: int, rq: Request) -> None:
        result = rq.result
        if result in (-errno.EBUSY, -errno.ESTALE):
            self._asked_since.pop(uuid, None)
            self._lose(uuid, held, "its lease was taken by somebody else")
            return
        if result < 0:
            log.warning('the lease of "%s" waits: %s', held.name, _text(result))
            self._pause(PORT_BLOCKERM)
            if uuid in self._asked_since:
                self._renewals.append((uuid, held))
            return
        self._asked_since.pop(uuid, None)
        if held.gone:
            return
        held.lease = Lease.unpack(rq.inline)
        held.granted_ns = started
        if not held.stopped and not self._leases.is_presence(uuid):
            self._words[uuid] = Op.ACQUIRE, deadline_of(held)

    def _give_up_late(self) -> None:
        """Lose what could have run out while the store did not answer."""
        if not self._asked_since:
            return
        now = boottime_ns()
        held_now = dict(self._leases.all())
        for uuid, since in list(self._asked_since.items()):
            held = held_now.get(uuid)
            if held is None or held.gone:
                del self._asked_since[uuid]
                continue
            if self._leases.is_presence(uuid):
                continue
            could_be_over = now >= held.granted_ns + held.lease.ttl_ns
            if could_be_over and self._awake_ns - since >= self._ttl_ns * 2 // 3:
                del self._asked_since[uuid]
                self._lose(uuid, held, "the store does not answer")

    def _lose(self, uuid: bytes, held: Held, why: str) -> None:
        if held.gone or self._leases.is_presence(uuid):
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
            # Who serves there next knows none of our leases until they are renewed.
            log.info("no news of leases for a moment: %s", _text(rq.result))
            self._pause(PORT_BLOCKERM)
            self._next_round_ns = boottime_ns()
            return
        uuid = rq.object[1][:16]
        now = Lease.unpack(rq.inline)
        held = dict(self._leases.all()).get(uuid)
        if held is None or (held.lease.fence == now.fence and now.expires_ns):
            return
        self._lose(uuid, held, "somebody broke its lease")

    # ---- words to vlmcd --------------------------------------------------------------

    def _say_lost(self, uuid: bytes) -> None:
        self._words[uuid] = Op.RELEASE, 0

    def _speak(self, port: Port) -> None:
        while self._words and self._depth[PORT_VLMCD] < _DEPTH:
            uuid = next(iter(self._words))
            op, deadline = self._words.pop(uuid)
            # Not about what was closed meanwhile: it may be open anew.
            self._leases.while_held(uuid, partial(self._say, port, op, uuid, deadline))

    def _say(self, port: Port, op: Op, uuid: bytes, deadline: int, held: Held) -> None:
        if (op is Op.RELEASE) == held.stopped:
            self._submit(port, PORT_VLMCD, op, lease_id(uuid), _heard, deadline)
            # If vlmcd is not there, the one that comes is told by its OPEN.

    # ---- requests --------------------------------------------------------------------

    def _submit(
        self,
        port: Port,
        dst: int,
        op: Op,
        target: ObjectId,
        done: Callable[[Request], None],
        deadline: int = 0,
        inline: bytes = b"",
        held: Held | None = None,
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
        """Let those go who woke this thread."""
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
