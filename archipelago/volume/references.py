# SPDX-License-Identifier: Apache-2.0
"""References: what headers refer to, besides content blocks, and through layers.

What a damaged header or layer refers to is unknown.  Then only that is known to be
unused which no other header can ever have referred to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from archipelago._format import MapFormatError
from archipelago._header import JOURNAL, Header, StackEntry
from archipelago._layer import layer_contents, layer_extents
from archipelago.errors import ArchipelagoError, MapCorrupt
from archipelago.ids import ObjectId, extent_id, journal_id, layer_id, lease_id
from archipelago.objects import Store
from archipelago.volume.index import Damaged, Stack
from xseg.constants import ObjectKind, VolumeFlag

log = logging.getLogger(__name__)


class Tables:
    """What tables refer to.  Layers never change, so each is read once.

    Args:
        store: where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._extents: dict[bytes, frozenset[ObjectId]] = {}

    def of_entry(self, entry: StackEntry) -> Iterator[ObjectId]:
        """The table of a stack's entry, and the extents that it refers to.

        Raises:
            MapCorrupt: the layer is damaged; itself was yielded before.
            BlockNotFound: it is not there.
        """
        if entry.type == JOURNAL:
            yield journal_id(entry.id, entry.number)
            yield extent_id(entry.extent_uuid, entry.extent_epoch)
            return
        target = layer_id(entry.id)
        yield target
        yield from self.extents(target)

    def extents(self, layer: ObjectId) -> frozenset[ObjectId]:
        """The extents that a layer refers to."""
        found = self._extents.get(layer.id)
        if found is None:
            try:
                pairs = layer_extents(
                    lambda off, size: self._store.read(layer, off, size),
                    layer.id[:16],
                )
            except MapFormatError as error:
                raise MapCorrupt(f"{layer} is damaged: {error}") from error
            found = frozenset(extent_id(uuid, epoch) for uuid, epoch in pairs)
            self._extents[layer.id] = found
        return found

    def contents(self, layer: ObjectId) -> set[bytes]:
        """The content blocks (digests) that a layer refers to."""
        try:
            return set(
                layer_contents(lambda off, size: self._store.read(layer, off, size))
            )
        except MapFormatError as error:
            raise MapCorrupt(f"{layer} is damaged: {error}") from error

    def keep_only(self, layers: set[bytes]) -> None:
        """Forget all other layers."""
        self._extents = {k: v for k, v in self._extents.items() if k in layers}


def own_objects(header: Header) -> list[ObjectId]:
    """What a header has besides its stack: its lease, and what a volume writes to."""
    own = [lease_id(header.uuid)]
    if not header.flags & VolumeFlag.READONLY:
        own.append(extent_id(header.uuid, header.epoch))
        own.append(journal_id(header.uuid, header.journal))
    return own


class References:
    """What all headers refer to together.

    Args:
        tables: reads layers.
        headers: all of them.

    Attributes:
        unsure: something is damaged, so that there may be more references.
    """

    def __init__(
        self,
        tables: Tables,
        headers: Iterable[Header | Damaged],
    ) -> None:
        self._tables = tables
        self.unsure = False
        self._by_kind: dict[ObjectKind, set[bytes]] = {
            kind: set() for kind in ObjectKind
        }
        self._all_layers_read = False
        self._contents: set[bytes] | None = None
        stacks: dict[int, Stack] = {}
        for header in headers:
            if isinstance(header, Damaged):
                self.unsure = True
                continue
            stacks[id(header.stack)] = header.stack
            for target in own_objects(header):
                self._by_kind[target.kind].add(target.id)
        for stack in stacks.values():
            for entry in stack:
                self._add_entry(entry)

    @property
    def layers(self) -> set[bytes]:
        """Ids of the layers among them."""
        return self._by_kind[ObjectKind.LAYER]

    def include(self, target: ObjectId) -> bool:
        """True if something refers to an object."""
        if target.id in self._by_kind[target.kind]:
            return True
        if target.kind is ObjectKind.EXTENT and not self._all_layers_read:
            self._read_layers()
            return target.id in self._by_kind[target.kind]
        if target.kind is ObjectKind.CONTENT:
            return target.id in self._all_contents()
        return False

    def _add_entry(self, entry: StackEntry) -> None:
        if entry.type != JOURNAL:
            self.layers.add(layer_id(entry.id).id)
            return
        journal = journal_id(entry.id, entry.number).id
        extent = extent_id(entry.extent_uuid, entry.extent_epoch).id
        self._by_kind[ObjectKind.JOURNAL].add(journal)
        self._by_kind[ObjectKind.EXTENT].add(extent)

    def _read_layers(self) -> None:
        self._all_layers_read = True
        for raw in list(self.layers):
            try:
                found = self._tables.extents(ObjectId(ObjectKind.LAYER, raw))
            except ArchipelagoError as error:
                log.error("what a layer refers to counts as used: %s", error)
                self.unsure = True
                continue
            self._by_kind[ObjectKind.EXTENT].update(target.id for target in found)

    def _all_contents(self) -> set[bytes]:
        if self._contents is None:
            self._contents = set()
            for raw in list(self.layers):
                try:
                    self._contents |= self._tables.contents(
                        ObjectId(ObjectKind.LAYER, raw)
                    )
                except ArchipelagoError as error:
                    log.error("what a layer refers to counts as used: %s", error)
                    self.unsure = True
        return self._contents
