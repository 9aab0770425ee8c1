# SPDX-License-Identifier: Apache-2.0
"""What each process is told."""

from __future__ import annotations

from pathlib import Path

from archipelago.peers.runner import PeerConfig
from archipelago.settings import ROLES, load_settings
from archipelago.supervisor import report
from archipelago.supervisor.plan import plan_processes, process_config
from xseg.constants import Role


def test_together_is_one_process(tmp_path: Path) -> None:
    plans = plan_processes(load_settings(tmp_path, placement="together"))
    assert [plan.roles for plan in plans] == [ROLES]


def test_apart_is_a_process_each(tmp_path: Path) -> None:
    plans = plan_processes(load_settings(tmp_path, placement="apart"))
    assert [(plan.name, plan.roles) for plan in plans] == [(r, (r,)) for r in ROLES]


def test_a_process_logs_as_much_as_its_loudest_peer(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, log={"level": 1, "mapperd": 3, "vlmcd": 0})
    assert process_config(settings, ROLES, [])["log_level"] == 3
    assert process_config(settings, ("vlmcd",), [])["log_level"] == 0
    assert process_config(settings, ("blockerb", "vlmcd"), [])["log_level"] == 1


def test_the_peer_process_understands_what_it_is_told(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    config = PeerConfig(**process_config(settings, ROLES, [7]))  # type: ignore[arg-type]
    assert config.segment == settings.segment_name
    assert config.listen_fds == [7]
    assert Role.NBD in config.native_roles
    config = PeerConfig(**process_config(settings, ("mapperd",), []))  # type: ignore[arg-type]
    assert config.native_roles == Role.MAPPERD
    assert config.marks_fd == -1
    config = PeerConfig(**process_config(settings, ROLES, [7], 8))  # type: ignore[arg-type]
    assert config.marks_fd == 8


def test_the_status_says_that_io_uring_is_missing(tmp_path: Path) -> None:
    def notes(actual: str, wanted: str = "auto") -> list[str]:
        settings = load_settings(tmp_path, engine=wanted)
        status = report.running(
            settings,
            pid=1,
            uptime=1.0,
            engine=actual,
            processes=[],
            ports=[],
            silence=lambda role: 0.0,
        )
        assert status["engine"] == actual
        return list(status["notes"])

    assert "no liburing" in notes("threads")[0]
    assert notes("io_uring") == []
    assert notes("threads", wanted="threads") == []  # as it was asked for
