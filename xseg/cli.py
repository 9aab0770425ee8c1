# SPDX-License-Identifier: Apache-2.0
"""The `xseg` command: make, inspect, watch and recover segments."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import click

from xseg import output
from xseg._segment import Segment
from xseg.constants import RequestState
from xseg.discover import segments
from xseg.errors import (
    AlreadyExists,
    BusyError,
    DataCorrupt,
    FormatMismatch,
    InvalidArgument,
    NoSpace,
    NotFound,
    XsegError,
)
from xseg.trust import segment_owner
from xseg.units import MIB, parse_size
from xseg.watch import port_rates

__all__ = ["cli", "main"]

P = ParamSpec("P")
R = TypeVar("R")

_CHUNK = 4 * MIB
_ADVICE: dict[type[XsegError], str] = {
    NotFound: "'xseg status' lists the segments there are",
    AlreadyExists: "choose another name, or 'xseg destroy' it first",
    NoSpace: "choose a smaller --heap, or a larger /dev/shm",
    FormatMismatch: "use the xseg of the version that made it",
    InvalidArgument: (
        "a name is 1 to 200 of A-Z a-z 0-9 . _ -, --requests a power of two, "
        "--heap 16M to 64G"
    ),
    BusyError: "stop those processes first, or use --force",
}
_IN_USE = [state.name.lower() for state in RequestState if state is not state.FREE]


def _size(_: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a size with a suffix; a bare number is MiB."""
    if value is None:
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error


def _reports(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an `XsegError` into one line on stderr and its exit status."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except XsegError as error:
            advice = next(
                (text for kind, text in _ADVICE.items() if isinstance(error, kind)), ""
            )
            _complain(f"{error.strerror}; {advice}" if advice else str(error.strerror))
            sys.exit(error.exit_code)

    return run


_json = click.option(
    "--json", "as_json", is_flag=True, help="Write JSON to standard output."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    package_name="archipelago", message="xseg %(version)s", help="Print the version."
)
def cli() -> None:
    """Create, inspect, watch and recover shared-memory segments."""


@cli.command(epilog="Example: xseg create lab --heap 1G")
@click.argument("name")
@click.option("--ports", type=click.IntRange(16, 4096), help="Port slots [1024].")
@click.option(
    "--requests",
    type=click.IntRange(64, 65536),
    help="Request descriptors, a power of two [8192].",
)
@click.option(
    "--heap",
    metavar="SIZE",
    callback=_size,
    help="Room for buffers [128M]; takes a suffix, a bare number is MiB.",
)
@_json
@_reports
def create(
    name: str, ports: int | None, requests: int | None, heap: int | None, as_json: bool
) -> None:
    """Create the segment NAME; all its memory is allocated now."""
    if heap == 0:  # would mean the default
        raise InvalidArgument(errno.EINVAL, f"create segment {name}: a heap of 0")
    rounded = -(-(heap or 0) // _CHUNK) * _CHUNK
    with Segment.create(
        name, ports=ports or 0, requests=requests or 0, heap_bytes=rounded
    ) as segment:
        output.created(segment.statistics(), as_json)


@cli.command()
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Even while processes use it.")
@_json
@_reports
def destroy(name: str, force: bool, as_json: bool) -> None:
    """Remove the segment NAME; its memory goes with the last process."""
    if not force:
        _refuse_in_use(name)
    Segment.destroy(name)
    output.destroyed(name, as_json)


def _refuse_in_use(name: str) -> None:
    """Raise if a living process has a port bound; a damaged segment has none."""
    try:
        with Segment.attach(name, owner=segment_owner(name)) as segment:
            users = [port for port in segment.ports() if port.alive]
    except NotFound:
        raise
    except XsegError:
        return
    if users:
        who = ", ".join(sorted({f"{port.role} ({port.owner_pid})" for port in users}))
        raise BusyError(errno.EBUSY, f"destroy segment {name}: in use by {who}")


@cli.command()
@click.argument("name", required=False)
@_json
@_reports
def status(name: str | None, as_json: bool) -> None:
    """Show sizes and use of the segment NAME, or of all."""
    found = []
    for each in [name] if name else segments():
        try:
            with Segment.attach(each, owner=segment_owner(each)) as segment:
                found.append(segment.statistics())
        except NotFound:
            if name:
                raise
        except XsegError as error:
            if name:
                raise
            _complain(str(error.strerror))
    output.statuses(found, as_json)


@cli.command()
@click.argument("name")
@_json
@_reports
def ports(name: str, as_json: bool) -> None:
    """Show the ports of the segment NAME: owner, queue, counters."""
    with Segment.attach(name, owner=segment_owner(name)) as segment:
        output.ports(segment.ports(), as_json)


@cli.command(epilog="Example: xseg requests archipelago --state serving")
@click.argument("name")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_IN_USE),
    help="Only requests in this state; may be repeated.",
)
@_json
@_reports
def requests(name: str, states: tuple[str, ...], as_json: bool) -> None:
    """Show the requests in use in the segment NAME.

    The oldest come first.
    """
    with Segment.attach(name, owner=segment_owner(name)) as segment:
        found = [rq for rq in segment.requests() if not states or rq.state in states]
    output.requests(sorted(found, key=lambda rq: -rq.age_ns), as_json)


@cli.command()
@click.argument("name")
@_json
@_reports
def reap(name: str, as_json: bool) -> None:
    """Give back what dead processes held in the segment NAME."""
    with Segment.attach(name, owner=segment_owner(name)) as segment:
        output.reaped(dataclasses.asdict(segment.reap()), as_json)


@cli.command()
@click.argument("name")
@_json
@_reports
def check(name: str, as_json: bool) -> None:
    """Look for what only a broken process can have written in the segment NAME.

    What a process leaves that dies is sound: a reap gives it back.
    """
    with Segment.attach(name, owner=segment_owner(name)) as segment:
        findings = segment.check()
    output.checked(name, findings, as_json)
    if findings:
        sys.exit(DataCorrupt.exit_code)


@cli.command(epilog="Example: xseg watch archipelago --interval 5")
@click.argument("name")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    help="Seconds between two looks [1].",
)
@click.option("--count", type=click.IntRange(1), help="End after so many intervals.")
@_json
@_reports
def watch(name: str, interval: float, count: int | None, as_json: bool) -> None:
    """Show what the ports of the segment NAME do: rates, depths, latencies."""
    with Segment.attach(name, owner=segment_owner(name)) as segment:
        before, then = segment.ports(), time.monotonic()
        while count is None or count > 0:
            time.sleep(interval)
            now, moment = segment.ports(), time.monotonic()
            output.watched(port_rates(before, now, moment - then), as_json)
            before, then = now, moment
            count = count - 1 if count is not None else None


def main() -> NoReturn:
    """Run the command line to its end and exit the process."""
    try:
        code = cli.main(prog_name="xseg", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        assert error.ctx is not None
        click.echo(error.ctx.get_help(), err=True)
        code = 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "xseg"
        message = error.format_message().rstrip(".")
        _complain(f"{message[:1].lower()}{message[1:]}; see '{where} --help'")
        code = 2
    except BrokenPipeError:
        # Nothing more can be written; the interpreter would try at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except OSError as error:
        _complain(f"standard output: {error.strerror}")
        code = 1
    except (click.Abort, KeyboardInterrupt):
        code = 128 + signal.SIGINT
    sys.exit(code)


def _complain(message: str) -> None:
    """Say what is wrong, in one line."""
    click.echo(f"xseg: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    main()
