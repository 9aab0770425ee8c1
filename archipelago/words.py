# SPDX-License-Identifier: Apache-2.0
"""Words for people: what a request does, as a verb."""

from __future__ import annotations

from xseg.constants import Op

__all__ = ["verb"]

#: Operations whose name on the wire is no word of the glossary, or says something else.
_VERBS = {
    Op.ACQUIRE: "lock",
    Op.DELETE: "remove",
    Op.INFO: "describe",
    Op.MAPR: "read",
    Op.MAPW: "write",
    Op.RELEASE: "unlock",
    Op.SYNC: "measure the store",
    Op.TRUNCATE: "resize",
    Op.UPDATE: "change",
}


def verb(op: Op) -> str:
    """What a request does: "remove", "resize"."""
    return _VERBS.get(op, op.name.lower())
