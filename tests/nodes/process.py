# SPDX-License-Identifier: Apache-2.0
"""Client processes of a node, commanded over a pipe; they may hang, and be killed.

A client of a node whose processes are stopped waits as long as they do, so nothing of
it may run in the process of who judges.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from archipelago import ArchipelagoError
from tests.helpers.cluster import HANG_SECONDS, NeverHappened

_PR_SET_PDEATHSIG = 1


class Refused(Exception):
    """What a client was told.

    Attributes:
        kind: name of the exception's class.
        number: its errno.
    """

    def __init__(self, kind: str, number: int, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.number = number


class Process:
    """A child process that carries out commands.

    Args:
        name: for messages.
        make: called in the child; the commands are the methods of what it returns.
    """

    def __init__(self, name: str, make: Callable[[], object]) -> None:
        self.name = name
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(
            target=_serve, args=(theirs, make, os.getpid()), daemon=True
        )
        self._child.start()
        theirs.close()
        self._asked: str | None = None

    def ask(self, command: str, *args: Any) -> None:
        """Begin a command; `answer` must follow."""
        assert self._asked is None, f"{self.name} still does {self._asked}"
        self._asked = command
        self._pipe.send((command, args))

    @property
    def busy(self) -> bool:
        """True while a command is under way."""
        return self._asked is not None and not self._pipe.poll()

    def answers_within(self, seconds: float) -> bool:
        """Wait for the answer for so long [s]."""
        return self._pipe.poll(seconds)

    def answer(self) -> Any:
        """What the command returned.

        Raises:
            Refused: the product said no.
            NeverHappened: it hangs.
        """
        command = self._asked
        if not self._pipe.poll(HANG_SECONDS):
            raise NeverHappened(f"{self.name}: {command} hangs")
        self._asked = None
        try:
            told, value = self._pipe.recv()
        except EOFError:
            raise AssertionError(f"{self.name} ended in {command}") from None
        if told == "refused":
            raise Refused(*value)
        assert told == "done", f"{self.name}: {command} failed in the test:\n{value}"
        return value

    def call(self, command: str, *args: Any) -> Any:
        """Carry out a command."""
        self.ask(command, *args)
        return self.answer()

    def kill(self) -> None:
        """End it at once.  Twice is harmless."""
        if self._pipe.closed:
            return
        self._child.kill()
        self._child.join()
        self._child.close()
        self._pipe.close()


def _serve(pipe: Connection, make: Callable[[], object], parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent:
        return
    target = make()
    while True:
        try:
            command, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("done", getattr(target, command)(*args)))
        except ArchipelagoError as error:
            value = (type(error).__name__, error.number, str(error))
            pipe.send(("refused", value))
        except OSError as error:
            value = (type(error).__name__, error.errno or 0, str(error))
            pipe.send(("refused", value))
        except Exception:
            pipe.send(("failed", traceback.format_exc()))
