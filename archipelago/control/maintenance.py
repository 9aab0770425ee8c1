# SPDX-License-Identifier: Apache-2.0
"""What happens without being asked: checkpoints, compaction, reclaiming.

One thread, one thing after another, so that it never takes more than one processor.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from archipelago.errors import ArchipelagoError, LeaseHeld, VolumeNotFound
from archipelago.volume.checkpoint import checkpoint, mend
from archipelago.volume.compact import compact
from archipelago.volume.context import Context, Life
from archipelago.volume.left import Left
from archipelago.volume.open import close_stale, forget_broken

log = logging.getLogger(__name__)

#: Time between two rounds [s].
_PERIOD = 1.0
#: Rounds after which what a process that died had open is closed: clients of the next
#: one have opened theirs again by then.
_STALE_ROUNDS = 10


class Maintenance:
    """The background thread of one control half.

    Args:
        ctx: what it works on.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._stopping = threading.Event()
        self._life: Life = None
        self._rounds = 0
        self._left = Left(ctx)
        self._thread = threading.Thread(
            target=self._run, name="archipelago-maintenance", daemon=True
        )

    def keep_left(self) -> None:
        """Keep what an earlier process left; before anybody is served."""
        try:
            self._left.keep()
        except ArchipelagoError as error:
            log.error("what an earlier process left is not kept: %s", error)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being done and end."""
        self._stopping.set()
        self._ctx.work_noted.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._ctx.composer_life() is None:
            self._left.settle()
        # Else what was left waits for the next control half: a vlmcd that lives may
        # have such a volume open, and not have noticed yet that its mapper is another.

    def round(self) -> None:
        """Do what there is to do now."""
        self._attempt(self._generation)
        self._attempt(self._reclaim)
        for step in (
            self._checkpoints,
            self._compactions,
            self._broken,
            self._stale,
            self._left.round,
        ):
            with self._ctx.generations.change():
                self._attempt(step)

    @staticmethod
    def _attempt(step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            log.exception("a round of maintenance failed; the next one tries again")

    def _generation(self) -> None:
        """Come to the store's generation, so that collectors need not wait for us."""
        self._ctx.reclaimer.come()

    def _run(self) -> None:
        due = time.monotonic() + _PERIOD
        while True:
            self._ctx.work_noted.wait(max(0.0, due - time.monotonic()))
            if self._stopping.is_set():
                return
            if time.monotonic() < due:
                # A volume that grew may be closed again within a period: begin at once.
                with self._ctx.generations.change():
                    self._attempt(self._compactions)
                continue
            self.round()
            due = time.monotonic() + _PERIOD

    def _checkpoints(self) -> None:
        ctx = self._ctx
        for opened in ctx.table.all():
            if opened.read_only or opened.broken or self._stopping.is_set():
                continue
            name = opened.header.name
            try:
                info = ctx.maps.info(opened.handle)
                if info.journal.length_bytes > ctx.limits.checkpoint_bytes:
                    checkpoint(ctx, name)
                elif info.dirty_marks:
                    mend(ctx, name)
            except ArchipelagoError as error:
                # It may have been closed or renamed just now.
                log.info('no checkpoint of "%s": %s', name, error)

    def _compactions(self) -> None:
        ctx = self._ctx
        for name in ctx.take_growing():
            if self._stopping.is_set():
                return
            try:
                compact(ctx, name, ctx.limits.stack_soft, background=True)
            except (VolumeNotFound, LeaseHeld):
                continue  # it was closed just now, and is another's
            except ArchipelagoError as error:
                log.warning('the tables of "%s" are not merged: %s', name, error)

    def _reclaim(self) -> None:
        # First: what rests was left by a round before this one.
        self._ctx.reclaimer.ripen()
        if self._ctx.reclaimer.wanted and not self._stopping.is_set():
            self._ctx.reclaimer.run()

    def _broken(self) -> None:
        """Forget volumes that were stopped, so that they can be opened anew."""
        ctx = self._ctx
        for name in [o.header.name for o in ctx.table.all() if o.broken]:
            try:
                with ctx.locks.hold(name):
                    opened = ctx.table.get(name)
                    if opened is not None and opened.broken:
                        forget_broken(ctx, opened)
            except ArchipelagoError as error:
                log.warning('"%s" is not cleared away: %s', name, error)

    def _stale(self) -> None:
        """Close what a vlmcd that is gone had open, once its successor has settled."""
        ctx = self._ctx
        opened = ctx.table.all()
        life = ctx.composer_life() if opened else None
        if life is None or life != self._life:
            self._life, self._rounds = life, 0
            return
        self._rounds += 1
        if self._rounds < _STALE_ROUNDS:
            return
        for name in [o.header.name for o in opened if o.opener != life]:
            try:
                with ctx.locks.hold(name):
                    close_stale(ctx, name)
            except ArchipelagoError as error:
                log.warning('"%s" is not closed yet: %s', name, error)
                continue
            log.info('"%s" is closed: the vlmcd that had it open is gone', name)
