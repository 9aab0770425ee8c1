# SPDX-License-Identifier: Apache-2.0
"""The control service: requests in, operations in worker threads, answers out.

One dispatcher thread owns the control port; a few workers execute requests, each with
ports of its own, and hand the answers back.  Operations on one volume wait for one
another in its name's lock.  An operation that fails in an unforeseen way is logged and
answered -EIO; the service goes on.

There are two lanes of workers.  Requests that read a whole map or the whole store have
the slow one, so that a change never waits behind them, and end early when their client
has gone (`archipelago.control.wanted`).
"""

from __future__ import annotations

import errno
import json
import logging
import queue
import threading
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from archipelago.control.arguments import ARGUMENTS_MAX_BYTES, Arguments
from archipelago.control.identity import check_may_be_left
from archipelago.control.instance import (
    instance_uuid,
    replace_uuid,
    wants_new_identity,
)
from archipelago.control.maintenance import Maintenance
from archipelago.control.operations import (
    LIST_MAX,
    PACKED,
    Call,
    changing,
    execute,
    inline_record,
    is_slow,
    lease_terms,
)
from archipelago.control.wanted import ControlMessenger, Wanted
from archipelago.errors import ArchipelagoError, IoError, UsageError, to_reply
from archipelago.volume.context import Context, Limits
from archipelago.volume.departed import await_departed
from archipelago.volume.listing import list_names
from archipelago.volume.open import close_all_stale
from xseg import Port, Request, Segment
from xseg.constants import BLOCK_MAX_BYTES, PORT_CONTROL, Flag, ObjectKind, Op
from xseg.errors import XsegError
from xseg.payload import Failure

log = logging.getLogger(__name__)

#: Workers of each lane.
_WORKERS = 4
#: A slow request that waits for its turn.
_Slow = tuple[Request, Call, Wanted]
#: Indices of the arguments of an answer to OPEN that speak of the lease.
_ARG_DEADLINE, _ARG_SINCE = 1, 2


class ControlService:
    """The control half of mapperd.

    Args:
        segment_name: segment of the instance.
        instance_file: keeps the uuid of the instance, which owns its leases; None makes
            one for this run.
        lease_ttl: life of a lease [s].
        host: name of this machine, for people; None asks the system.
        limits: when to work in the background.
        block_size: of volumes that are created without a word on it [bytes].
        holder_pid: of the process with which the instance ends; None: this one.
        nonce: names the run of the instance, also for the next control half of it; None
            makes one.
    """

    def __init__(
        self,
        segment_name: str,
        *,
        instance_file: Path | None = None,
        lease_ttl: float = 10.0,
        host: str | None = None,
        limits: Limits | None = None,
        block_size: int = BLOCK_MAX_BYTES,
        holder_pid: int | None = None,
        nonce: bytes | None = None,
    ) -> None:
        self._segment = Segment.attach(segment_name)
        self._messenger = ControlMessenger(self._segment)
        self._instance_file = instance_file
        self._make_context = partial(
            Context,
            self._messenger,
            lease_ttl=lease_ttl,
            host=host,
            limits=limits or Limits(),
            block_size=block_size,
            holder_pid=holder_pid,
            nonce=nonce,
        )
        self.context = self._make_context(instance_uuid(instance_file))
        self.maintenance = Maintenance(self.context)
        self._ending = threading.Event()  # slow requests are given up
        self._stopping = threading.Event()
        self._todo: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._slow: queue.SimpleQueue[_Slow | None] = queue.SimpleQueue()
        self._done: deque[tuple[Request, int]] = deque()
        self._workers = [
            threading.Thread(target=work, name=f"archipelago-{name}-{i}")
            for name, work in (("control", self._work), ("slow", self._work_slowly))
            for i in range(_WORKERS)
        ]
        self._dispatcher = threading.Thread(
            target=self._dispatch, name="archipelago-control", daemon=True
        )
        self._port: Port | None = None

    def start(self) -> None:
        """Serve from now on.

        Raises:
            ArchipelagoError, XsegError: the port is taken, or the blockers do not
            answer.
        """
        try:
            # Nothing is read before the deeds of a control half that died have ended.
            await_departed(self._segment)
            self._take_identity()
            ctx = self.context
            ctx.presences.begin()
            # Other instances need not wait for what no change here uses.
            ctx.reclaimer.come()
            self.maintenance.keep_left()
            self._port = self._segment.bind(PORT_CONTROL, "control")
        except BaseException:
            self._messenger.patience = 0.0
            self._messenger.close()
            self._segment.close()
            raise
        ctx.start()
        for worker in self._workers:
            worker.daemon = True
            worker.start()
        self._dispatcher.start()
        self.maintenance.start()

    def stop(self) -> None:
        """Finish what was begun, give the leases back, end.

        Volumes that a living vlmcd has open stay its own: it goes on with the next
        control half, which finds their leases and marks.  If the blockers have ended
        before, the presence of this run ends by itself, and its leases with it.
        """
        self._messenger.patience = 0.0
        self._ending.set()
        self.maintenance.stop()
        for _ in range(_WORKERS):
            self._todo.put(None)
            self._slow.put(None)
        for worker in self._workers:
            worker.join()
        self._end_dispatcher()
        ctx = self.context
        close_all_stale(ctx)
        ctx.reclaimer.ripen()
        ctx.reclaimer.run()
        ctx.stop()
        self._end_presence()
        self._messenger.close()
        self._segment.close()

    def _take_identity(self) -> None:
        """Take a new uuid, if the command that starts the instance wants that."""
        path = self._instance_file
        if path is None or not wants_new_identity(path):
            return
        check_may_be_left(self.context)
        self.context = self._make_context(replace_uuid(path))
        self.maintenance = Maintenance(self.context)
        log.info("this is instance %s from now on", self.context.instance.hex())

    def _end_presence(self) -> None:
        try:
            self.context.presences.end()
        except ArchipelagoError as error:
            log.warning("the presence of this instance runs out: %s", error)

    def _end_dispatcher(self) -> None:
        """End its thread and unbind its port; open requests end with ECANCELED."""
        port = self._port
        if port is None:
            return
        self._stopping.set()
        with self._messenger.port.request() as bell:
            bell.op = Op.PING
            self._messenger.port.submit(bell, PORT_CONTROL)
            self._dispatcher.join()
            while (rq := port.accept()) is not None:
                port.complete(rq, -errno.ECANCELED)
            port.unbind()
            while self._messenger.port.reap() is None:
                self._messenger.port.wait()

    # ---- the dispatcher's thread -----------------------------------------------------

    def _dispatch(self) -> None:
        port = self._port
        assert port is not None
        while not self._stopping.is_set():
            while (rq := port.accept()) is not None:
                if rq.op == Op.PING and not rq.data_len:
                    # From a worker, to say that it is done; or from anyone.
                    port.complete(rq, 0)
                else:
                    self._todo.put(rq)
            self._answer_all(port)
            if not self._stopping.is_set():
                port.wait(1.0)
        self._answer_all(port)

    def _answer_all(self, port: Port) -> None:
        while self._done:
            rq, result = self._done.popleft()
            try:
                port.complete(rq, result)
            except XsegError as error:
                log.warning("a request cannot be answered: %s", error)

    def _wake(self) -> None:
        try:
            self._messenger.call(PORT_CONTROL, Op.PING)
        except (ArchipelagoError, XsegError) as error:
            log.debug("the dispatcher looks again by itself: %s", error)

    # ---- the workers' threads --------------------------------------------------------

    def _work(self) -> None:
        while (rq := self._todo.get()) is not None:
            call: Call | None = None
            failure: ArchipelagoError | None = None
            try:
                call = _decode(rq)
                if is_slow(rq.op, call):
                    wanted = Wanted(self._segment, rq.src_port, self._ending)
                    self._slow.put((rq, call, wanted))
                    continue
            except ArchipelagoError as error:
                failure = error
            self._finish(rq, call, failure)

    def _work_slowly(self) -> None:
        while (slow := self._slow.get()) is not None:
            rq, call, wanted = slow
            # What deletes goes on to its end.
            reads = not call.arguments.wants("reclaim")
            self._messenger.work_for(wanted if reads else None)
            try:
                wanted.check()  # it may have gone while this waited for its turn
            except ArchipelagoError as error:
                self._finish(rq, call, error)
                continue
            self._finish(rq, call, None)

    def _finish(
        self, rq: Request, call: Call | None, failure: ArchipelagoError | None
    ) -> None:
        """Execute a request, if it has not failed before, and hand its answer on."""
        try:
            result = self._serve(rq, call, failure)
        except Exception:
            log.exception("a control request could not be served")
            result = -errno.EIO
        self._done.append((rq, result))
        self._wake()

    def _serve_names(self, rq: Request) -> int:
        """The packed LIST of an endpoint: names only (payload.h)."""
        try:
            limit = min(max(rq.data_len // 8, 1), LIST_MAX)
            found, more = list_names(self.context, rq.target, limit)
        except ArchipelagoError as error:
            log.warning("the volumes cannot be listed: %s", error)
            return -error.number
        except XsegError:
            return -errno.EINVAL
        packed, count = _pack_names(found, rq.data_len)
        rq.data_view(len(packed))[:] = packed
        rq.set_arg(0, len(packed))
        rq.set_arg(1, int(more or count < len(found)))
        return count

    def _serve(
        self, rq: Request, call: Call | None, failure: ArchipelagoError | None
    ) -> int:
        """Execute a request and write its answer into it; returns its result."""
        op = rq.op
        if op == Op.LIST and not rq.size:
            return self._serve_names(rq)
        refusal = b""
        try:
            if failure is not None or call is None:
                raise failure or UsageError("the request is malformed")
            with changing(self.context, op):
                answer = execute(self.context, op, call)
            result = 0
        except ArchipelagoError as error:
            result, answer = to_reply(error)
            refusal = Failure(error.msgid, error.message).pack()
        except Exception as error:
            log.exception('operation %d on "%s" failed', op, call.name if call else "")
            what = f"mapperd failed ({type(error).__name__}): its log says how"
            result, answer = to_reply(IoError(what))
        record = inline_record(self.context, op, call) if call is not None else b""
        if op in PACKED and result < 0:
            record = refusal
        # Never leave the name there: it must not be taken for a record.
        rq.inline[:] = record.ljust(len(rq.inline), b"\0")
        if op == Op.OPEN and call is not None:
            deadline, since = lease_terms(self.context, call)
            rq.set_arg(_ARG_DEADLINE, deadline)
            rq.set_arg(_ARG_SINCE, since)
        return result if op in PACKED else _encode(rq, result, answer)


def _pack_names(names: Iterable[str], room: int) -> tuple[bytes, int]:
    """Each name behind its length, as many as fit; and how many those are."""
    packed = bytearray()
    count = 0
    for name in names:
        raw = name.encode()
        if len(packed) + 1 + len(raw) > room:
            break
        packed += bytes([len(raw)]) + raw
        count += 1
    return bytes(packed), count


def _decode(rq: Request) -> Call:
    try:
        name = rq.target
        if rq.op in PACKED:
            return _decode_packed(rq, name)
        size = rq.size
        if size > ARGUMENTS_MAX_BYTES:
            raise UsageError(f"{size} bytes of arguments are too many")
        raw = bytes(rq.data_view(size)) if size else b""
    except XsegError as error:
        raise UsageError(f"the request is malformed: {error}") from error
    return Call(name, Arguments(raw), Flag(rq.flags & _KNOWN_FLAGS))


def _decode_packed(rq: Request, name: str) -> Call:
    kind, object_id = rq.object
    uuid = object_id[:16] if kind == ObjectKind.LEASE else None
    flags = Flag(rq.flags & _KNOWN_FLAGS)
    return Call(name, Arguments(b""), flags, uuid, rq.arg(0) if uuid else 0)


_KNOWN_FLAGS = Flag.RDONLY | Flag.FORCE | Flag.HOLD


def _encode(rq: Request, result: int, answer: dict[str, object]) -> int:
    """Write the answer over the arguments; without room for it there is none."""
    raw = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
    if rq.data_len < len(raw):
        rq.set_arg(0, 0)
        if result == 0 and rq.data_len:
            return -errno.ENOBUFS
        return result
    rq.data_view(len(raw))[:] = raw
    rq.set_arg(0, len(raw))
    return result
