# SPDX-License-Identifier: Apache-2.0
"""What all commands share: errors in one line, exit codes, interruptions, options."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from archipelago import errors
from archipelago.cli.app import cli as archipelago_cli
from archipelago.cli.base import report
from archipelago.cli.output import write_fields, write_table
from tests.helpers.instance import BIN
from vlmc.cli import cli as vlmc_cli
from xseg.errors import NotFound, PortUnbound


def run(
    program: str, *args: str, home: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / program), *args],
        env={**os.environ, "ARCHIPELAGO_HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.VolumeNotFound('no volume "v"'), 3, 'no volume "v"'),
        (errors.VolumeExists("taken"), 4, "taken"),
        (errors.LeaseHeld("in use"), 5, "in use"),
        (errors.ReadOnlySnapshot("a snapshot"), 6, "a snapshot"),
        (errors.NoSpace("full"), 7, "full"),
        (errors.NotRunning("not running"), 8, "not running"),
        (errors.MapCorrupt("corrupt"), 9, "corrupt"),
        (errors.ConfigError("bad\nsetting"), 2, "bad setting"),
        (NotFound(errno.ENOENT, "no segment"), 3, "no segment"),
        (PortUnbound(errno.EPIPE, "nobody"), 8, "nobody"),
        (FileNotFoundError(errno.ENOENT, "No such file", "f.img"), 3, "f.img: No such"),
        (FileExistsError(errno.EEXIST, "File exists", "f"), 4, "f: File exists"),
        (OSError(errno.ENOSPC, "No space left", "/x"), 7, "/x: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "Permission"),
        (TypeError("oops"), 1, "internal error: TypeError: oops; ARCHIPELAGO_DEBUG=1"),
    ],
)
def test_errors_are_one_line_and_a_code(
    error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, "vlmc") == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("vlmc: ")
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCHIPELAGO_DEBUG", "1")
    try:
        raise TypeError("oops")
    except TypeError as error:
        report(error, "vlmc")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["archipelago", "stpo"], "no such command: stpo; did you mean stop?"),
        (["archipelago", "start", "filed"], "'filed' is not one of 'blockerb'"),
        (["archipelago", "stop", "--frce"], "--frce"),
        (["archipelago", "start", "-o", "engine"], "'engine' is not KEY=VALUE"),
        (["archipelago", "start", "-o", "engin=auto"], "did you mean engine?"),
        (["archipelago", "start", "--placement", "beside"], "'beside'"),
        (["archipelago", "config", "shwo"], "shwo"),
        (["archipelago", "completion", "csh"], "'csh'"),
        (["vlmc", "creat"], "did you mean create?"),
        (["vlmc", "create"], "missing argument"),
        (["vlmc", "create", "v"], "--size or --snap is needed"),
        (["vlmc", "create", "v", "--size", "big"], "'big' is not a size"),
        (["vlmc", "create", "v", "--size", "-1"], "'-1'"),
        (["vlmc", "create", "v", "--snap", "s", "--block-size", "64K"], "--block-size"),
        (["vlmc", "resize", "v"], "missing option"),
        (["vlmc", "clone", "s"], "missing argument"),
        (["vlmc", "remove"], "missing argument"),
        (["vlmc", "hash", "v"], "no such command: hash"),
        (["vlmc", "--home", "", "list"], "the directory's name is empty"),
        (["archipelago", "stop", "--home="], "the directory's name is empty"),
        (["xseg", "stauts"], "no such command 'stauts'"),
        (["xseg", "create"], "missing argument 'NAME'"),
        (["xseg", "create", "a\nb"], "a name is 1 to 200 of"),
        (["xseg", "create", "x", "--heap", "12Q"], "unknown unit 'q'"),
        (["xseg", "create", "x", "--heap", "0"], "--heap 16M to 64G"),
        (["xseg", "create", "x", "--ports", "3"], "16<=x<=4096"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    tmp_path: Path, args: list[str], words: str
) -> None:
    done = run(*args, home=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(args[0])


@pytest.mark.parametrize(
    "args",
    [
        ["list"], ["info", "v"], ["create", "v", "--size", "1"], ["rm", "v"], ["df"],
        ["snapshot", "v", "s"], ["clone", "s", "v"], ["open", "v"], ["close", "v"],
        ["lock", "v"], ["unlock", "-f", "v"], ["rename", "v", "w"], ["url", "v"],
        ["resize", "v", "-s", "1"], ["export", "v", "f"], ["import", "/dev/null", "v"],
        ["list", "--json"],
    ],
)  # fmt: skip
def test_without_an_instance_every_command_ends_with_8(
    tmp_path: Path, args: list[str]
) -> None:
    done = CliRunner().invoke(vlmc_cli, ["--home", str(tmp_path), *args])
    assert done.exit_code == 8
    assert done.stdout == ""
    assert str(tmp_path) in done.stderr
    assert f'"archipelago start --home {tmp_path}"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_home_and_json_are_taken_anywhere(tmp_path: Path) -> None:
    home = str(tmp_path / "h")
    for args in (
        ["--home", home, "--json", "status"],
        ["status", "--home", home, "--json"],
        ["--json", "status", "--home", home],
        ["-u", "status", "-u", "--json", "--home", home],
        ["--home", "/nowhere", "status", "--json", "--home", home],
    ):
        done = CliRunner().invoke(archipelago_cli, args)
        assert done.exit_code == 8, done.stderr
        assert json.loads(done.stdout)["home"] == home


def test_a_bad_setting_stops_only_what_needs_settings(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "archipelago.toml"
    file.write_text("engine = 5\n")
    for command in ("start", "restart"):
        done = run("archipelago", command, home=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"archipelago: {file}: engine = 5: ")
        assert done.stdout == ""
    assert run("archipelago", "stop", home=tmp_path).returncode == 8
    status = run("archipelago", "status", home=tmp_path)
    assert status.returncode == 8
    assert f"note: it would not start: {file}: engine = 5: " in status.stdout


def test_config_show(tmp_path: Path) -> None:
    args = ["config", "show", "--home", str(tmp_path), "-o", "segment.heap=64"]
    done = CliRunner().invoke(archipelago_cli, [*args, "--json"])
    assert done.exit_code == 0, done.stderr
    shown = json.loads(done.stdout)
    heap = shown["settings"]["segment.heap"]
    assert heap == {"value": 64 << 20, "origin": "command line"}
    assert shown["settings"]["direct"] == {"value": False, "origin": "default"}
    assert shown["paths"]["segment"].startswith("archipelago-")
    table = CliRunner().invoke(archipelago_cli, args).stdout
    assert "segment.heap      64 MiB" in table
    assert "command line" in table


def test_help_and_version_load_no_command() -> None:
    script = """
        import sys
        sys.argv = ["vlmc", "--help"]
        try:
            from vlmc.cli import main
            main()
        finally:
            slow = {"pydantic", "rich", "asyncio", "xseg", "archipelago.client",
                    "archipelago.settings", "vlmc.create"}
            print(sorted(slow & set(sys.modules)), file=sys.stderr)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "remove|rm" in done.stdout
    assert done.stderr == "[]\n"
    for program in ("archipelago", "vlmc"):
        done = subprocess.run(
            [str(BIN / program), "--version"], capture_output=True, text=True
        )
        assert done.stdout.startswith(f"{program} ")


@pytest.mark.parametrize("program", ["archipelago", "vlmc"])
@pytest.mark.parametrize(
    ("shell", "words"),
    [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --no-files")],
)
def test_completion_scripts(
    tmp_path: Path, program: str, shell: str, words: str
) -> None:
    done = run(program, "completion", shell, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert f"_{program.upper()}_COMPLETE" in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def complete(program: str, words: str, home: Path) -> list[str]:
    """What the shell would be offered for the last of the words."""
    done = run(
        program,
        home=home,
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
        **{f"_{program.upper()}_COMPLETE": "bash_complete"},
    )
    return [line.split(",")[1] for line in done.stdout.split()]


def test_completion_offers_commands_and_peers(tmp_path: Path) -> None:
    assert complete("vlmc", "vlmc re", tmp_path) == ["remove", "rename", "resize"]
    peers = complete("archipelago", "archipelago stop block", tmp_path)
    assert peers == ["blockerb", "blockerm"]
    assert complete("vlmc", "vlmc info x", tmp_path) == []


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    script = """
        import os, signal, click
        # A shell may have started us with it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from archipelago.cli.base import Entry, LazyGroup, run
        @click.group(cls=LazyGroup, entries={"x": Entry("x_command", "")})
        def cli(): pass
        import sys, types
        module = types.ModuleType("x_command")
        @click.command()
        def command():
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        module.command = command
        sys.modules["x_command"] = module
        run(cli, "prog")
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), "x"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.strip() == ""


def show_settings(home: Path, into: int) -> subprocess.CompletedProcess[str]:
    """Run a command that prints a lot; `into`: descriptor of its output."""
    return subprocess.run(
        [str(BIN / "archipelago"), "config", "show"],
        env={**os.environ, "ARCHIPELAGO_HOME": str(home)},
        stdout=into,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = show_settings(tmp_path, writing)
    os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""


def test_a_full_output_is_not_taken_for_a_full_store(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = show_settings(tmp_path, full.fileno())
    assert done.returncode == 7
    assert done.stderr == "archipelago: standard output: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(tmp_path: Path, closed: str) -> None:
    for command, code in (("config show", 0), ("stop", 8)):
        done = subprocess.run(
            ["sh", "-c", f"exec '{BIN}/archipelago' {command} {closed}"],
            env={**os.environ, "ARCHIPELAGO_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        assert (done.stderr == "") == (code == 0 or "2>&-" in closed)


@pytest.mark.parametrize("program", ["archipelago", "vlmc", "xseg"])
def test_without_a_command_the_help_is_shown(tmp_path: Path, program: str) -> None:
    done = run(program, home=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"Usage: {program} [OPTIONS] COMMAND")
    assert "\n  --version" in done.stderr


def ended(script: str) -> subprocess.CompletedProcess[str]:
    """Run an indented script to its end."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_ends_a_command_in_good_order(
    number: signal.Signals, ignored: bool
) -> None:
    script = f"""
        import os, signal, click
        signal.signal({number:d}, signal.{"SIG_IGN" if ignored else "SIG_DFL"})
        from archipelago.cli.base import run
        @click.command()
        def command():
            try:
                os.kill(os.getpid(), {number:d})
            finally:
                click.echo("cleaned up")
        run(command, "prog")
        """
    done = ended(script)
    assert done.returncode == (0 if ignored else 128 + number)
    assert done.stdout == "cleaned up\n"
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_fails_on_the_way_out_of_a_signal_is_not_told(
    number: signal.Signals,
) -> None:
    script = f"""
        import os, signal, sys, types, click
        signal.signal({number:d}, signal.SIG_DFL)
        from archipelago.cli.base import Entry, LazyGroup, run
        signal.signal(signal.SIGINT, signal.default_int_handler)
        @click.command()
        def command():
            try:
                os.kill(os.getpid(), {number:d})
            finally:
                raise OSError("a request is in flight")
        sys.modules["it"] = types.ModuleType("it")
        sys.modules["it"].command = command
        group = LazyGroup("prog", entries={{"it": Entry("it", "Do it.")}})
        sys.argv = ["prog", "it"]
        run(group, "prog")
        """
    done = ended(script)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.strip() == ""  # click ends the line of a Ctrl-C


def test_columns_are_as_wide_as_they_must_be() -> None:
    @click.command()
    def show() -> None:
        write_table(["NAME", "SIZE"], [["a" * 200, 1], ["b", None]], right="lr")
        write_fields([("name", "x"), ("parent", None)])

    lines = CliRunner().invoke(show).stdout.splitlines()
    assert lines[0] == "NAME" + " " * 196 + "  SIZE"
    assert lines[1] == "a" * 200 + "     1"
    assert lines[2] == "b" + " " * 199 + "     -"
    assert lines[3:] == ["name    x", "parent  -"]
