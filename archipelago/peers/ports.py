# SPDX-License-Identifier: Apache-2.0
"""The port that each role serves."""

from __future__ import annotations

from typing import Final

from xseg.constants import PORT_BLOCKERB, PORT_BLOCKERM, PORT_MAPPERD, PORT_VLMCD

__all__ = ["PORTS"]

PORTS: Final = {
    "blockerb": PORT_BLOCKERB,
    "blockerm": PORT_BLOCKERM,
    "mapperd": PORT_MAPPERD,
    "vlmcd": PORT_VLMCD,
}
