# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 21: an instance whose home was deleted went on spinning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from archipelago import paths
from tests.helpers.instance import BIN, Instance
from tests.helpers.waiting import PATIENCE


def test_it_ends_by_itself(tmp_path: Path) -> None:
    instance = Instance(tmp_path / "home")
    instance.home.mkdir()
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [str(BIN / "archipelago"), "start", "--foreground"],
            env=instance.env,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as supervisor,
    ):
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline().startswith(b"archipelago is running")
        instance.vlmc("create", "v", "--size", "8M")
        instance.vlmc("open", "v")
        shutil.rmtree(instance.home)
        assert supervisor.wait(PATIENCE) == 0
    assert log.read_text().count("were deleted") == 1
    assert not (Path("/dev/shm") / paths.segment_name(instance.home)).exists()
