# SPDX-License-Identifier: Apache-2.0
"""May this instance take another identity (`archipelago start --new-identity`)?

A copied state directory or machine has the identity of the first one.  The copy gets a
new uuid, and what the store holds under the old one stays the first one's.  If no first
one is at work, locks under the old uuid would have no owner any more: then the new
identity is refused.
"""

from __future__ import annotations

import logging
import time

from archipelago.errors import ArchipelagoError, ConfigError
from archipelago.volume.context import Context
from archipelago.volume.incarnation import is_here, is_over
from xseg.payload import Presence

log = logging.getLogger(__name__)

#: How often a presence is looked at that may be renewed or run out [s].
_LOOK_AGAIN = 0.1
#: How many volumes a message names.
_NAMED = 5


def check_may_be_left(ctx: Context) -> None:
    """Raise if volumes are held under this instance's uuid, and by no other process.

    Raises:
        ConfigError: there are some; the message names them.
        ArchipelagoError: the store does not answer.
    """
    if _another_is_at_work(ctx):
        return
    ctx.index.refresh(full=True)
    held = sorted(h.name for h in ctx.index.live() if _holds(ctx, h.uuid))
    if held:
        names = ", ".join(f'"{name}"' for name in held[:_NAMED])
        more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
        raise ConfigError(
            f"no new identity: this instance has locked {names}{more}. Start it "
            'without --new-identity, unlock with "vlmc unlock", stop it, and try again'
        )


def _another_is_at_work(ctx: Context) -> bool:
    """True if another process renews the presence of this uuid, or is known to live.

    A presence that only may be alive is watched: it is renewed at a third of its life,
    or it runs out.
    """
    seen: Presence | None = None
    while True:
        there = ctx.presences.get(ctx.instance)
        if there is None or is_over(there):
            return False
        if is_here(there) or (seen is not None and there != seen):
            return True
        if seen is None:
            log.warning(
                "an instance with this identity on %s may live: looking", there.host
            )
        seen = there
        time.sleep(_LOOK_AGAIN)


def _holds(ctx: Context, uuid: bytes) -> bool:
    try:
        lease = ctx.leases.peek(uuid)
    except ArchipelagoError as error:
        log.warning("the lease of volume %s cannot be read: %s", uuid.hex(), error)
        return False
    return lease is not None and ctx.leases.is_own(lease)
