# SPDX-License-Identifier: Apache-2.0
"""A real instance in a folder of its own: processes, store, sockets.

Tests use the commands a person would type; `Instance.vlmc` and `Instance.archipelago`
run them and return what happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archipelago import Client, connect
from archipelago.paths import segment_name

BIN = Path(sys.executable).parent


@dataclass
class Instance:
    """One instance under `home`; not running until `start`."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)
    #: Of the environment of its processes and commands, besides the settings.
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """Environment of its commands."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("ARCHIPELAGO_")}
        env["ARCHIPELAGO_HOME"] = str(self.home)
        env.update({f"ARCHIPELAGO_{k.upper()}": v for k, v in self.settings.items()})
        env.update(self.variables)
        return env

    def command(
        self, program: str, *args: str, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the project to its end."""
        done = self.raw(program, *args, stdin=stdin)
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def raw(
        self, program: str, *args: str, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """The same, with its output as bytes."""
        return subprocess.run(
            [str(BIN / program), *args],
            env=self.env,
            capture_output=True,
            input=stdin,
            timeout=120,
        )

    def vlmc(self, *args: str, exit_code: int = 0) -> str:
        """Run ``vlmc``; its standard output.  Any other exit code fails the test."""
        return self._expect("vlmc", args, exit_code)

    def archipelago(self, *args: str, exit_code: int = 0) -> str:
        """Run ``archipelago``; its standard output."""
        return self._expect("archipelago", args, exit_code)

    def _expect(self, program: str, args: tuple[str, ...], exit_code: int) -> str:
        done = self.command(program, *args)
        assert done.returncode == exit_code, (
            f"{program} {' '.join(args)}: exit {done.returncode}, not {exit_code}\n"
            f"{done.stdout}{done.stderr}{self.logs()}"
        )
        return done.stdout

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.archipelago("start")

    def stop(self) -> None:
        """Stop it, whatever is open."""
        done = self.command("archipelago", "stop", "--force")
        assert done.returncode in (0, 8), done.stderr + self.logs()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def status(self) -> Any:
        """What ``archipelago status --json`` says."""
        return json.loads(self.command("archipelago", "status", "--json").stdout)

    def connect(self) -> Client:
        """A Python client of it."""
        return connect(self.home)

    def connect_and_list(self) -> list[str]:
        """The names of its volumes and snapshots."""
        with self.connect() as client:
            return [info.name for info in client.list()]

    def logs(self) -> str:
        """The last lines of all its logs, for a failure's message."""
        text = ""
        for log in sorted(self.home.rglob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-20:]
            text += f"\n--- {log.name}\n" + "\n".join(lines)
        return text


@contextlib.contextmanager
def running_instance(**settings: str) -> Iterator[Instance]:
    """A started instance; stopped, checked for leftovers and removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="arch-"))
    instance = Instance(home, settings)
    try:
        instance.start()
        try:
            yield instance
        finally:
            instance.stop()
        left = Path("/dev/shm") / segment_name(home)
        assert not left.exists(), f"shared memory left behind: {left}"
    finally:
        shutil.rmtree(home, ignore_errors=True)
