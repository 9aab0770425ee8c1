# SPDX-License-Identifier: Apache-2.0
"""The control half of a mapperd process, started when what it needs is there.

It needs blockerm from its first moment.  With blockerm in this process, or running in
another, it starts at once; while an administrator has stopped blockerm, a thread tries
until it is back, and the native half of mapperd is there meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from archipelago.control import ControlService
from archipelago.errors import ArchipelagoError, NotRunning
from xseg.errors import XsegError

__all__ = ["ControlHalf"]

log = logging.getLogger(__name__)

#: Pause between two tries [s].
_PAUSE = 0.2


class ControlHalf:
    """Starts and stops the control service.

    Args:
        make: makes a service that is not yet started.
        patient: whether to go on trying while blockerm is not there.
    """

    def __init__(self, make: Callable[[], ControlService], *, patient: bool) -> None:
        self._make = make
        self._patient = patient
        self._service: ControlService | None = None
        self._stopping = threading.Event()
        self._trying = threading.Thread(target=self._try, name="control-start")

    def start(self) -> None:
        """Start it, now or as soon as blockerm is there.

        Raises:
            ArchipelagoError, XsegError: it cannot start.
        """
        try:
            self._service = self._started()
        except NotRunning as error:
            if not self._patient:
                raise
            log.warning("no volume can be opened or changed for now: %s", error)
            self._trying.start()

    def stop(self) -> None:
        """Stop it, or the tries."""
        self._stopping.set()
        if self._trying.ident is not None:
            self._trying.join()
        if self._service is not None:
            self._service.stop()

    def _started(self) -> ControlService:
        service = self._make()
        service.start()
        return service

    def _try(self) -> None:
        while not self._stopping.wait(_PAUSE):
            try:
                self._service = self._started()
            except NotRunning:
                continue
            except (ArchipelagoError, XsegError) as error:
                log.error("the control half does not start: %s", error)
            else:
                log.warning("volumes can be opened and changed again")
                return
