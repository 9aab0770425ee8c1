# SPDX-License-Identifier: Apache-2.0
"""The supervisor's process: ``python -m archipelago.supervisor``.

Started by `archipelago.supervisor.launch`, which hands over the locked pid file and a
pipe on which one JSON line says that all is up, or why not.  What the command line set
comes as JSON on standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from archipelago.errors import ArchipelagoError
from archipelago.settings import Settings, load_settings
from archipelago.supervisor import client, ground
from archipelago.supervisor.core import Supervisor
from archipelago.supervisor.lock import PidLock
from archipelago.supervisor.server import ControlServer

__all__ = ["run_foreground"]

log = logging.getLogger("archipelago.supervisor")

#: Tells the starter that all is up; False if the starter has gone away.
Report = Callable[[Mapping[str, Any]], bool]


def main() -> int:
    """Run the daemon; returns its exit status."""
    parser = argparse.ArgumentParser(prog="archipelago.supervisor")
    parser.add_argument("--home")
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    arguments = parser.parse_args()
    overrides = json.load(sys.stdin)
    if os.fork():
        os._exit(0)
    for fd in (arguments.lock_fd, arguments.ready_fd):
        os.set_inheritable(fd, False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.chdir("/")
    _log_to_stderr()

    def report(answer: Mapping[str, Any]) -> bool:
        try:
            with open(arguments.ready_fd, "w", encoding="utf-8") as pipe:
                pipe.write(json.dumps(answer) + "\n")
        except BrokenPipeError:
            return False
        return True

    try:
        settings = load_settings(arguments.home, **overrides)
        os.umask(0o007 if settings.group else 0o077)
        lock = PidLock(settings.pid_file, arguments.lock_fd)
        return asyncio.run(_live(settings, overrides, lock, report))
    except ArchipelagoError as error:
        log.error("%s", error)
        report(
            {"error": str(error), "msgid": error.msgid, "exit_code": error.exit_code}
        )
        return error.exit_code
    except Exception as error:
        log.exception("the supervisor failed")
        report(
            {
                "error": f"{type(error).__name__}: {error}",
                "msgid": "error",
                "exit_code": 1,
            }
        )
        return 1


def run_foreground(
    settings: Settings, overrides: Mapping[str, Any], report: Report
) -> None:
    """Be the supervisor in this process, until a signal or a stop command.

    Raises:
        ArchipelagoError: the instance did not come up.
    """
    client.refuse_second(settings.locations)
    ground.prepare(settings)
    lock = PidLock.acquire(settings.pid_file)
    _log_to_stderr()
    asyncio.run(_live(settings, overrides, lock, report))


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )


async def _live(
    settings: Settings, overrides: Mapping[str, Any], lock: PidLock, report: Report
) -> int:
    """The whole life, in the order in which things are taken and given back."""
    lock.write_pid()
    supervisor = Supervisor(settings, overrides, lock)
    server = ControlServer(supervisor)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.ended.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    ending = asyncio.create_task(supervisor.ended.wait())
    try:
        await server.open()
        starting = asyncio.create_task(supervisor.start())
        await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            log.info("asked to end while starting")
            return 1
        log.info("running, pid %d", os.getpid())
        if not report(supervisor.status()):
            log.error("the command that started this has gone: stopping")
            supervisor.ended.set()
        await ending
        log.info("stopping")
        await supervisor.stop(force=True)
        return 0
    finally:
        ending.cancel()
        server.unlink()
        lock.release()
        server.disconnect()
        log.info("ended")


if __name__ == "__main__":
    sys.exit(main())
