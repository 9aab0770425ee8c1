# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

import xseg
from xseg import Op, Port, Segment
from xseg.cli import cli
from xseg.testing import unique_name


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def read(*args: str) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(code: int, *args: str) -> str:
    result = run(*args)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def name() -> Iterator[str]:
    name = unique_name()
    yield name
    if name in xseg.segments():
        Segment.destroy(name)


def test_create_status_destroy(name: str) -> None:
    made = read("create", name, "--ports", "32", "--requests", "128", "--heap", "17M")
    assert (made["name"], made["nr_ports"], made["nr_requests"]) == (name, 32, 128)
    assert made["heap_bytes"] == 20 << 20  # rounded up to 4 MiB
    assert read("status", name)["segments"] == [made]
    assert made in read("status")["segments"]
    assert read("destroy", name) == {"destroyed": name}
    assert name not in xseg.segments()


def test_a_bare_heap_size_is_mib(name: str) -> None:
    assert read("create", name, "--heap", "16")["heap_bytes"] == 16 << 20


def test_tables_are_for_people(segment: Segment, port: Port) -> None:
    with port.request() as rq:
        rq.op, rq.target = Op.SNAPSHOT, "v" * 60
        assert segment.name in run("status", segment.name).output
        ports = run("ports", segment.name).output
        assert "client" in ports and str(os.getpid()) in ports
        requests = run("requests", segment.name).output
        assert "SNAPSHOT" in requests and "allocated" in requests
        assert "v" * 37 + "..." in requests


def test_empty_tables_say_so(segment: Segment) -> None:
    assert run("ports", segment.name).output == "no ports are bound\n"
    assert run("requests", segment.name).output == "no requests are in use\n"


def test_ports_and_requests_as_json(segment: Segment, port: Port) -> None:
    with port.request() as rq:
        rq.op, rq.target = Op.OPEN, "disk"
        (shown,) = read("ports", segment.name)["ports"]
        assert (shown["id"], shown["role"], shown["alive"]) == (port.id, "client", True)
        (shown,) = read("requests", segment.name)["requests"]
        assert (shown["op"], shown["target"]) == ("OPEN", "disk")
        assert read("requests", segment.name, "--state", "serving")["requests"] == []
        states = ("--state", "serving", "--state", "allocated")
        assert len(read("requests", segment.name, *states)["requests"]) == 1


def test_reap(segment: Segment) -> None:
    assert read("reap", segment.name) == {"ports": 0, "requests": 0, "buffers": 0}
    assert "0 ports" in run("reap", segment.name).output


def test_check(segment: Segment) -> None:
    assert read("check", segment.name) == {"sound": True, "findings": []}
    assert run("check", segment.name).output == f"{segment.name}: sound\n"
    with open(f"/dev/shm/{segment.name}", "r+b") as file:
        file.seek(4096 + 768 * 9)  # the state of port 9
        file.write(b"\xff")
    found = run("check", segment.name)
    assert found.exit_code == 9
    assert found.output == "port 9: no such state as 255\n"


def test_watch(segment: Segment) -> None:
    with segment.bind(9, "server"):
        shown = run("watch", segment.name, "--interval", "0.1", "--count", "1")
    assert "server" in shown.output
    assert "latency us" in shown.output


def test_a_segment_in_use_is_not_destroyed(segment: Segment, port: Port) -> None:
    line = fails(5, "destroy", segment.name)
    assert segment.name in line and str(os.getpid()) in line and "--force" in line
    assert segment.name in xseg.segments()
    assert run("destroy", segment.name, "--force").exit_code == 0
    assert segment.name not in xseg.segments()


@pytest.mark.parametrize(
    "command", ["status", "ports", "requests", "check", "watch", "reap", "destroy"]
)
def test_a_missing_segment_ends_with_3(command: str) -> None:
    line = fails(3, command, "nobody-made-this")
    assert "nobody-made-this" in line and "xseg status" in line


def test_a_taken_name_ends_with_4(segment: Segment) -> None:
    assert segment.name in fails(4, "create", segment.name, "--heap", "16M")


def test_a_bad_name_or_size_ends_with_2(name: str) -> None:
    assert "A-Z" in fails(2, "create", "a/b", "--heap", "16M")
    assert "power of two" in fails(2, "create", name, "--requests", "100")
    assert run("create", name, "--heap", "10Q").exit_code == 2
    assert run("create", name, "--ports", "1").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert name not in xseg.segments()


def test_no_space_ends_with_7(name: str) -> None:
    room = os.statvfs("/dev/shm")
    if room.f_bavail * room.f_frsize > 60 << 30:
        pytest.skip("/dev/shm is too large to fill")
    line = fails(7, "create", name, "--heap", "60G")
    assert name in line and "--heap" in line
    assert name not in xseg.segments()


def test_a_damaged_segment_ends_with_9_and_can_be_destroyed(segment: Segment) -> None:
    with open(f"/dev/shm/{segment.name}", "r+b") as file:
        file.write(b"ACPXSEG1\x63")
    assert segment.name in fails(9, "status", segment.name)
    listed = run("status", "--json")
    assert listed.exit_code == 0
    assert segment.name in listed.stderr
    assert run("destroy", segment.name).exit_code == 0


@pytest.mark.slow
def test_the_command_runs_as_a_process(segment: Segment) -> None:
    def process(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "xseg.cli", *args], capture_output=True, text=True
        )

    done = process("status", segment.name, "--json")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["segments"][0]["name"] == segment.name
    missing = process("ports", "nobody-made-this")
    assert missing.returncode == 3 and missing.stdout == ""
    assert missing.stderr.count("\n") == 1
