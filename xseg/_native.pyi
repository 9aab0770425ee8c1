# SPDX-License-Identifier: Apache-2.0
import sys
from collections.abc import Iterable
from os import PathLike
from types import TracebackType
from typing import final

from xseg._segment import Segment
from xseg.constants import Role

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

def default_engine() -> str: ...

@final
class Native:
    def __init__(
        self,
        segment: Segment | str,
        roles: Role | int,
        *,
        backend: str,
        data_path: str | PathLike[str] | None = None,
        maps_path: str | PathLike[str] | None = None,
        engine: str = "auto",
        direct: bool = False,
        io_timeout: float = 0.0,
        listen_fds: Iterable[int] = (),
        attach_fd: int = -1,
        marks_fd: int = -1,
        log_level: int = 1,
    ) -> None: ...
    @property
    def roles(self) -> Role: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...
    def retire(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
