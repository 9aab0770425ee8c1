# SPDX-License-Identifier: Apache-2.0
"""Which volumes are open: asked of vlmcd before anything is stopped."""

from __future__ import annotations

import logging

from archipelago.errors import ArchipelagoError
from archipelago.messenger import Messenger
from xseg import Segment
from xseg.constants import PORT_VLMCD, Op, VolumeFlag
from xseg.errors import XsegError
from xseg.payload import VolumeInfo, unpack_volumes

__all__ = ["list_open"]

log = logging.getLogger(__name__)

#: Room for the answer [bytes]: more open volumes than this are not all named.
_ROOM = 1 << 20


def list_open(segment_name: str) -> list[str]:
    """Name the open volumes, with how they are held; none if vlmcd does not answer.

    Blocks; call it in a thread.  A vlmcd that does not answer serves nobody, so it is
    no reason against stopping it.
    """
    try:
        with Segment.attach(segment_name) as segment:
            messenger = Messenger(segment, "supervisor", patience=1.0)
            try:
                reply = messenger.call(
                    PORT_VLMCD,
                    Op.LIST,
                    room=_ROOM,
                    take=lambda _, result: max(result, 0) * VolumeInfo.LAYOUT.size,
                )
            finally:
                messenger.close()
        if reply.result < 0:
            log.warning("vlmcd does not list open volumes: errno %d", -reply.result)
            return []
        volumes = unpack_volumes(reply.data, reply.result)
    except (ArchipelagoError, XsegError) as error:
        log.warning("cannot ask vlmcd for open volumes: %s", error)
        return []
    return [_describe(volume) for volume in volumes]


def _describe(volume: VolumeInfo) -> str:
    held = " (held by 'vlmc open')" if volume.flags & VolumeFlag.HELD else ""
    return f"{volume.name}{held}"
