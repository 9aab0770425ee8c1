# SPDX-License-Identifier: Apache-2.0
"""fio --verify through QEMU's NBD client, which reconnects and repeats, under kill -9.

fio --NBD--> qemu-nbd --NBD, reconnect-delay--> us.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.instance import Instance
from tests.integration.killing import (
    MIB,
    ROUNDS,
    all_run,
    kill,
    new_volume,
    survivors,
    until,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.requires_fio,
    pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="needs qemu-nbd"),
]

#: How long QEMU tries to connect again before its users get an error [s].
RECONNECT_DELAY = 30
WORK = {
    "4k": ("--rw=randwrite", "--bs=4k", "--size=12m"),
    "mixed": ("--rw=randrw", "--bssplit=512/10:4k/40:12k/20:64k/30", "--size=24m"),
}


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        return True
    return False


@contextlib.contextmanager
def reconnecting(instance: Instance, volume: str, folder: Path) -> Iterator[str]:
    """A proxy of an export that survives its connection; the proxy's URI."""
    path = folder / "proxy.sock"
    options = (
        f"driver=nbd,server.type=unix,server.path={instance.status()['nbd'][0]},"
        f"export={volume},reconnect-delay={RECONNECT_DELAY}"
    )
    proxy = subprocess.Popen(
        ["qemu-nbd", "--persistent", "-k", str(path), "--image-opts", options],
        stdin=subprocess.DEVNULL,
    )
    try:
        until(lambda: _answers(path), lambda: "qemu-nbd listens")
        yield f"nbd+unix:///?socket={path}"
    finally:
        proxy.terminate()
        proxy.wait()


def run_fio(
    instance: Instance,
    folder: Path,
    work: str,
    rng: random.Random,
    strike: Callable[[], object],
) -> None:
    """Let fio write and verify, and strike at random moments meanwhile."""
    volume = new_volume(instance, "fio", 32 * MIB)
    with reconnecting(instance, volume, folder) as uri:
        command = [
            "fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}",
            "--iodepth=16", "--loops=6",
            "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256",
            "--fsync=64", f"--randseed={rng.getrandbits(32)}", *WORK[work],
        ]  # fmt: skip
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,  # it leaves a file there
        ) as fio:
            strikes = 0
            while strikes < ROUNDS:
                try:
                    fio.wait(rng.uniform(0.1, 1.0))
                    break
                except subprocess.TimeoutExpired:
                    strike()
                    strikes += 1
            text, _ = fio.communicate(timeout=300)
            print(f"{strikes} strikes")
            assert fio.returncode == 0, f"{' '.join(command)}\n{text}{instance.logs()}"
            assert strikes > 0
    all_run(instance)


@pytest.mark.parametrize("work", WORK)
def test_verify_while_peers_are_killed(
    instance: Instance, rng: random.Random, tmp_path: Path, work: str
) -> None:
    def strike() -> None:
        living = survivors(instance)
        chosen = rng.sample(sorted(living), rng.randrange(1, len(living) + 1))
        print("kill", chosen)
        kill({living[name] for name in chosen}, rng)

    run_fio(instance, tmp_path, work, rng, strike)


def test_verify_while_peers_are_restarted(
    instance: Instance, rng: random.Random, tmp_path: Path
) -> None:
    run_fio(instance, tmp_path, "mixed", rng, lambda: instance.archipelago("restart"))
