# SPDX-License-Identifier: Apache-2.0
"""Start a supervisor as a daemon and wait until it and its peers are ready."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from archipelago.settings import Settings
from archipelago.supervisor import client, ground
from archipelago.supervisor.lock import PidLock

__all__ = ["launch"]


def launch(settings: Settings, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Start the instance in the background.

    Args:
        settings: checked settings of the instance.
        overrides: what the command line added to them.

    Returns:
        Its status, once all peers are ready.

    Raises:
        AlreadyRunning: a supervisor runs.
        ConfigError: directories cannot be made.
        SupervisorError: it did not come up; nothing is left running.
    """
    client.refuse_second(settings.locations)
    ground.prepare(settings)
    lock = PidLock.acquire(settings.pid_file)
    try:
        return _await_ready(settings, overrides, lock)
    finally:
        lock.close()


def _await_ready(
    settings: Settings, overrides: Mapping[str, Any], lock: PidLock
) -> dict[str, Any]:
    home = settings.locations.home
    log_file = client.log_of(settings.locations, settings.log_dir)
    errors = os.open(
        log_file,
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
        0o640,
    )
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as ready:
        try:
            # It forks once more, so that init is its parent when this returns.
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "archipelago.supervisor",
                    *((f"--home={home}",) if home is not None else ()),
                    f"--lock-fd={lock.fd}",
                    f"--ready-fd={writing}",
                ],
                input=json.dumps(dict(overrides)).encode(),
                stdout=errors,
                stderr=errors,
                pass_fds=[lock.fd, writing],
                start_new_session=True,
                cwd="/",
                env=ground.child_environment(),
                check=False,
            )
        finally:
            os.close(writing)
            os.close(errors)
        line = ready.readline()
    if not line:
        raise client.SupervisorError(
            f"the supervisor ended before it was ready; see {log_file}",
            msgid="start",
        )
    answer = json.loads(line)
    if "error" in answer:
        raise client.SupervisorError(
            answer["error"], answer["exit_code"], answer["msgid"]
        )
    return dict(answer)
