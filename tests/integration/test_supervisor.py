# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the supervisor: its peers end in good order, and a start works at once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from pathlib import Path

import pytest

from archipelago.paths import segment_name
from archipelago.settings import ROLES
from tests.helpers.instance import Instance
from tests.integration.killing import (
    ROUNDS,
    await_end,
    census,
    kill,
    load,
    pids,
    processes_of,
    same_as,
    until,
)
from tests.integration.nbdwire import Command, Connection
from tests.integration.verifier import Verifier
from xseg import Segment
from xseg.constants import PORT_MAPPERD

pytestmark = pytest.mark.slow


def test_supervisor_killed(instance: Instance, rng: random.Random) -> None:
    """The peers flush before they end, so even what was only answered is there."""
    before = census(instance)
    with load(instance, "headless", rng) as verifier:
        for _ in range(ROUNDS):
            verifier.wait_answers(rng.randrange(300))
            verifier.hold()
            kill({instance.status()["pid"]}, rng)
            instance.start()
            verifier.release(crashed=False)
            verifier.wait_answers(50)
    same_as(instance, before)


def test_everything_killed(instance: Instance, rng: random.Random) -> None:
    """Only what was flushed has to be there."""
    before = census(instance)
    with load(instance, "gone", rng) as verifier:
        for _ in range(ROUNDS):
            verifier.wait_answers(rng.randrange(300))
            victims = {instance.status()["pid"], *pids(instance).values()}
            verifier.hold()
            kill(victims, rng)
            instance.start()
            verifier.release(crashed=True)
            verifier.wait_answers(50)
    same_as(instance, before)


def die_together(
    instance: Instance,
    verifier: Verifier,
    rng: random.Random,
    supervisor: int,
    peer: int,
) -> None:
    """Kill a peer and the supervisor, then start again; nothing of before is left."""
    started = processes_of(instance)
    os.kill(supervisor, signal.SIGSTOP)  # it starts no successor
    kill({supervisor, peer}, rng)
    instance.start()
    verifier.release(crashed=True)
    verifier.wait_answers(50)
    assert not started & processes_of(instance)


@pytest.mark.parametrize("victim", ["blockerb", "blockerm", "mapperd"])
def test_nobody_waits_for_a_peer_that_died_with_its_supervisor(
    apart: Instance, rng: random.Random, victim: str
) -> None:
    """No process is left that could start it again."""
    with load(apart, victim, rng) as verifier:
        verifier.wait_answers(50)
        verifier.hold()
        die_together(apart, verifier, rng, apart.status()["pid"], pids(apart)[victim])
    assert not re.search("do(es)? not end", apart.logs())


def test_a_peer_that_starts_waits_for_nobody_who_died_with_the_supervisor(
    apart: Instance, rng: random.Random
) -> None:
    with load(apart, "starting", rng) as verifier:
        verifier.wait_answers(50)
        verifier.hold()
        living = pids(apart)
        supervisor = apart.status()["pid"]
        os.kill(living["blockerm"], signal.SIGSTOP)
        kill({living["mapperd"]}, rng)
        with Segment.attach(segment_name(apart.home)) as segment:
            until(
                lambda: any(
                    port.id == PORT_MAPPERD
                    and port.alive
                    and port.owner_pid != living["mapperd"]
                    for port in segment.ports()
                ),
                lambda: "the next mapperd starts",
            )
        die_together(apart, verifier, rng, supervisor, living["blockerm"])
    # That is what it says when it has waited.
    assert "no volume can be opened or changed for now" not in apart.logs()


def test_a_dead_supervisor_leaves_no_process_and_no_lease(
    instance: Instance, rng: random.Random
) -> None:
    with load(instance, "orphans", rng) as verifier:
        verifier.wait_answers(50)
        verifier.hold()
        started = processes_of(instance)
        kill({instance.status()["pid"]}, rng)
        for pid in started:
            await_end(pid)
        assert processes_of(instance) == set()
        # The name of its memory is all that is left, for the next one to remove.
        assert (Path("/dev/shm") / segment_name(instance.home)).exists()
        instance.start()
        held = json.loads(instance.vlmc("info", verifier.export, "--json"))
        assert held.get("lease") is None
        verifier.release(crashed=False)
        verifier.wait_answers(50)


@pytest.mark.parametrize("role", ROLES)
def test_a_stop_is_in_good_order_without_a_peer_that_was_stopped_before(
    instance: Instance, role: str
) -> None:
    """What was answered is there, flushed or not, and no lease is left."""
    name = f"without-{role}"
    instance.vlmc("create", name, "--size", "8M")
    connection = Connection(str(instance.home / "run" / "nbd.sock"), name)
    connection.send(Command.WRITE, 1, 0, 4096, b"answered".ljust(4096))
    assert connection.receive_reply().error == 0
    instance.archipelago("stop", "--force", role)
    instance.archipelago("stop", "--force")
    connection.close()
    instance.start()
    held = json.loads(instance.vlmc("info", name, "--json"))
    assert held.get("lease") is None
    with instance.connect() as client, client.open(name) as volume:
        assert volume.pread(8, 0) == b"answered"
