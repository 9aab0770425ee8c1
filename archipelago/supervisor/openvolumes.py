# SPDX-License-Identifier: Apache-2.0
"""Which volumes are open: asked of vlmcd before anything is stopped."""

from __future__ import annotations

import logging

from xseg import Segment
from xseg.constants import PORT_ANY, PORT_VLMCD, Op, VolumeFlag
from xseg.errors import XsegError
from xseg.payload import VolumeInfo, unpack_volumes

__all__ = ["list_open"]

log = logging.getLogger(__name__)

#: Room for the answer [bytes]: of more open volumes than fit, not all are named.
_ROOM = 1 << 20
#: How long vlmcd may take to answer [s].
_PATIENCE = 5.0


def list_open(segment_name: str) -> list[str]:
    """Name the open volumes, with how they are held; none if vlmcd does not answer.

    Blocks; call it in a thread.  A vlmcd that does not answer serves no client, so that
    is no reason against stopping it.
    """
    try:
        with Segment.attach(segment_name) as segment:
            return [_describe(volume) for volume in _ask(segment)]
    except XsegError as error:
        log.warning("vlmcd does not say which volumes are open: %s", error)
        return []


def _ask(segment: Segment) -> list[VolumeInfo]:
    with (
        segment.bind(PORT_ANY, "supervisor") as port,
        segment.alloc(_ROOM) as buffer,
        port.request() as request,
    ):
        request.op = Op.LIST
        request.size = _ROOM
        request.set_data(buffer, 0, _ROOM)
        count = port.call(request, PORT_VLMCD, timeout=_PATIENCE)
        if count < 0:
            log.warning("vlmcd does not list open volumes: errno %d", -count)
            return []
        fitting = min(count, _ROOM // VolumeInfo.LAYOUT.size)
        with request.data_view() as answer:
            return unpack_volumes(answer, fitting)


def _describe(volume: VolumeInfo) -> str:
    held = " (held by 'vlmc open')" if volume.flags & VolumeFlag.HELD else ""
    return f"{volume.name}{held}"
