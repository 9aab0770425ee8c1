# SPDX-License-Identifier: Apache-2.0
"""The control socket: what a client may say, and who may say it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.instance import Instance

pytestmark = pytest.mark.slow


@pytest.fixture
def sock(make_instance: Callable[..., Instance]) -> Any:
    instance = make_instance(backend="mem")
    instance.start()
    path = instance.home / "run" / "supervisor.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        yield sock


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"hello\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[]\n", "not an object"),
        (b"{}\n", "unknown command None"),
        (b'{"command": "dance"}\n', "unknown command 'dance'"),
        (b'{"command": "start"}\n', "unknown command 'start'"),
        (b'{"command": "stop", "peer": "filed"}\n', "no such peer: filed"),
        (b'{"command": "stop", "peer": 3}\n', "not a string"),
        (b'{"command": "restart"}\n', "overrides is not an object"),
        (b'{"command": "restart", "overrides": {"engine": "x"}}\n', "engine = 'x'"),
        (b'{"command": "restart", "overrides": {"a": 1}}\n', "unknown key"),
    ],
)
def test_bad_requests_are_answered(
    sock: socket.socket, line: bytes, words: str
) -> None:
    lines = sock.makefile("rb")
    sock.sendall(line)
    answer = json.loads(lines.readline())
    assert answer["ok"] is False
    assert words in answer["message"]
    assert answer["exit_code"] == 2
    sock.sendall(b'{"command": "status"}\n')
    assert json.loads(lines.readline())["running"] is True


def test_endless_requests_are_cut_off(sock: socket.socket) -> None:
    lines = sock.makefile("rb")
    sock.sendall(b"x" * (1 << 17))
    assert json.loads(lines.readline())["message"] == "the request is too long"
