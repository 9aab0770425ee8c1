# SPDX-License-Identifier: Apache-2.0
"""What every command has: lazy loading, ``--home`` and ``--json``, errors, sizes.

Commands run thousands of times in scripts, so a command's module is imported only when
that command is called, and this module imports nothing that is slow.

Standard output carries data only; a command that fails says why in one line on standard
error and ends with the error's exit code (`archipelago.errors`).
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

__all__ = [
    "Common",
    "Entry",
    "LazyGroup",
    "common_options",
    "home_option",
    "run",
    "size_callback",
]

AnyCallback = TypeVar("AnyCallback", bound=Callable[..., Any])

#: Exit codes that the shell knows: 128 + SIGINT and 128 + SIGPIPE.
_INTERRUPTED = 128 + signal.SIGINT
_BROKEN_PIPE = 128 + signal.SIGPIPE


@dataclass
class Common:
    """What ``--home`` and ``--json`` said, before or after the command's name."""

    home: str | None = None
    json: bool = False

    @staticmethod
    def current() -> Common:
        """The options of the running command."""
        common = click.get_current_context().find_root().ensure_object(Common)
        assert isinstance(common, Common)
        return common


@dataclass(frozen=True)
class Entry:
    """A command of a `LazyGroup`: the module with its `command`, and its one line."""

    module: str
    help: str
    alias: bool = False


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def __init__(
        self, *args: Any, entries: Mapping[str, Entry] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._entries = dict(entries or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names for the help page and for completion, in reading order."""
        return [name for name, entry in self._entries.items() if not entry.alias]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        command = importlib.import_module(entry.module).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, suggesting one that looks alike."""
        if args and args[0] not in self._entries and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], self._entries, 1)
            hint = f"did you mean {close[0]}?" if close else "--help lists all"
            ctx.fail(f"no such command: {args[0]}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    ("|".join((name, *self._aliases(name))), entry.help)
                    for name, entry in self._entries.items()
                    if not entry.alias
                ]
            )

    def _aliases(self, name: str) -> list[str]:
        module = self._entries[name].module
        return [
            other
            for other, entry in self._entries.items()
            if entry.alias and entry.module == module
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever goes wrong becomes one line and an exit code."""
        if ctx.parent is not None:
            return super().invoke(ctx)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError as error:
            if hasattr(error, "exit_code"):  # of the segment, not of our output
                ctx.exit(report(error, ctx.info_name))
            # Nothing more can be written; the interpreter would try at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_BROKEN_PIPE)
        except Exception as error:
            if (signalled := _signal_before(error)) is not None:
                raise signalled from None
            ctx.exit(report(error, ctx.info_name))
        return result


def _signal_before(error: BaseException) -> BaseException | None:
    """The end by a signal on whose way out something failed, if there was one.

    A request that is under way when the signal comes cannot be given back, say.  That
    is no news for the sender of the signal.
    """
    before = error.__context__
    while before is not None:
        if isinstance(before, SystemExit | KeyboardInterrupt):
            return before
        before = before.__context__
    return None


def run(group: click.Group, program: str) -> NoReturn:
    """Run a command line to its end and exit the process."""
    _open_standard_streams()
    _end_in_good_order()
    try:
        code = group.main(prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        assert error.ctx is not None
        click.echo(error.ctx.get_help(), err=True)
        code = 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else program
        message = error.format_message().rstrip(".").replace("\n", " ")
        message = message[:1].lower() + message[1:]
        _complain(f"{where}: {message}; see '{where} --help'")
        code = 2
    except click.ClickException as error:
        _complain(f"{program}: {error.format_message()}")
        code = error.exit_code
    except click.Abort:
        code = _INTERRUPTED
    except KeyboardInterrupt:
        code = _INTERRUPTED
    sys.exit(code)


#: Ways of a stream to write every character somehow, if not as it is.
_LENIENT = ("backslashreplace", "replace", "ignore", "xmlcharrefreplace", "namereplace")


class _Output(TextIOWrapper):
    """Standard output that says its name when it cannot be written.

    Else an error would look as if the store were full.  A character that the
    terminal's encoding lacks is escaped: a listing is not cut short by a name.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _named(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _named(error) from error


def _named(error: OSError) -> OSError:
    if isinstance(error, BrokenPipeError):
        return error
    return OSError(error.errno, error.strerror, "standard output")


def _open_standard_streams() -> None:
    """Let what the caller closed be open: else the next file would take its number.

    What is written there would be written to that file, perhaps the segment.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    out = sys.stdout
    if isinstance(out, TextIOWrapper):
        encoding = out.encoding
        errors = out.errors if out.errors in _LENIENT else "backslashreplace"
        sys.stdout = _Output(out.detach(), encoding, errors, line_buffering=True)


def _end_in_good_order() -> None:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does: nothing half done stays.

    A signal that the caller ignores (``nohup``) stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def report(error: Exception, program: str | None) -> int:
    """Say in one line on standard error what went wrong; return the exit code."""
    if os.environ.get("ARCHIPELAGO_DEBUG") == "1":
        traceback.print_exception(type(error), error, error.__traceback__)
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        message = _text(error)
    elif isinstance(error, OSError) and error.errno is not None:
        code = _CODES.get(error.errno, 1)
        message = _text(error)
    else:
        code = 1
        message = (
            f"internal error: {type(error).__name__}: {error}; ARCHIPELAGO_DEBUG=1 "
            "shows where"
        )
    _complain(f"{program}: {message}")
    return code


#: Exit codes of errors that came from the system itself.
_CODES = {
    errno.ENOENT: 3,
    errno.EEXIST: 4,
    errno.EBUSY: 5,
    errno.EROFS: 6,
    errno.ENOSPC: 7,
    errno.EDQUOT: 7,
}


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and not hasattr(error, "message"):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    return str(error)


def _complain(line: str) -> None:
    click.echo(" ".join(line.split()), err=True)


def _set_home(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value == "":
        # An unset variable of a script; it must not mean the system's instance.
        raise click.BadParameter("the directory's name is empty", ctx, param)
    if value is not None:
        ctx.find_root().ensure_object(Common).home = value


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().ensure_object(Common).json = True


def home_option(function: AnyCallback) -> AnyCallback:
    """Add ``--home``."""
    return click.option(
        "--home",
        type=click.Path(),
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=_set_home,
        help="Use the instance under DIR (default: ARCHIPELAGO_HOME, else the system's "
        "or the user's).",
    )(function)


def common_options(function: AnyCallback) -> AnyCallback:
    """Add ``--home`` and ``--json``."""
    function = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_json,
        help="Write JSON to standard output.",
    )(function)
    return home_option(function)


def size_callback(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | None:
    """Turn an option into bytes: ``10G``, ``512M``; a bare number is in MiB."""
    if value is None:
        return None
    from archipelago.units import parse_size

    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
