# SPDX-License-Identifier: Apache-2.0
"""The disk: what a power cut may leave of a recorded sequence of calls.

Two layers.  What a finished sync covers is *durable*: it is in the base images and
the base tree, which only grow as the cut moves on.  Everything else that was begun
before the cut is *pending*: each state keeps, drops or tears it as its dice say.

Rules (docs/design/0002-crash-replay.md has the reasons):

* data, punches and sizes of a file: by fsync or fdatasync of that file, if they ended
  before it began; syncfs covers everything
* names: by fsync of the directory they are in (a rename: the new one's), if they ended
  before it began; a name in a directory whose own name is lost is lost
* a write or punch is torn at 512 bytes; a rename is atomic
* a write with RWF_DSYNC that has returned is there, what else is pending or not
* what a call of a killed process did is what was found after its death: from then on
  it is pending like any other, and the next sync that covers it
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.crash.journal import DATA, SYNCS, Event, Kind

UNIT = 512

#: A directory's entry in a tree; files have the number of their image.
DIRECTORY = -1

#: A write that ended with one of these may have written something.
_MAYBE_WRITTEN = frozenset({errno.EIO, errno.ENOSPC})


@dataclass(slots=True)
class _Change:
    """A change of one file that may not be durable; if `sure`, it is."""

    kind: Kind
    image: int
    begun: int
    offset: int
    length: int
    data: bytes
    ended: bool = False
    sure: bool = False


@dataclass(slots=True)
class _Names:
    """A change of names that may not be durable: entries and their new contents."""

    begun: int
    home: str
    entries: tuple[tuple[str, int | None], ...]
    ended: bool = False
    removes: str = ""


@dataclass(slots=True)
class _Image:
    """One inode: its durable bytes and what is pending."""

    base: bytearray = field(default_factory=bytearray)
    pending: list[_Change] = field(default_factory=list)
    frozen: bytes | None = b""

    def durable(self) -> bytes:
        if self.frozen is None:
            self.frozen = bytes(self.base)
        return self.frozen


@dataclass(frozen=True)
class Dice:
    """How one state treats what is pending.

    Attributes:
        seed: of all choices that are not said here.
        keep: probability of keeping a change.
        until: changes begun from this event on are dropped.
        tear: probability that a change that is kept is torn.
    """

    seed: int
    keep: float
    until: int
    tear: float

    @classmethod
    def throw(cls, seed: int, first_pending: int, cut: int) -> Dice:
        """Choose, from the seed, one of: all, none, a prefix, anything at random."""
        rng = random.Random(seed)
        mode = rng.randrange(6)
        if mode == 0:
            return cls(seed, 0.0, cut, 0.0)
        if mode == 1:
            return cls(seed, 1.0, cut, 0.0)
        if mode == 2:
            return cls(seed, 1.0, rng.randint(first_pending, cut), 0.5)
        return cls(seed, rng.random(), cut, rng.choice([0.0, 0.3, 1.0]))


class Disk:
    """The state of the store as the cut moves through a log."""

    def __init__(self, roots: Iterable[str]) -> None:
        self.position = 0
        self._tree: dict[str, int] = dict.fromkeys(roots, DIRECTORY)
        self._live: dict[str, int] = dict(self._tree)
        self._images: list[_Image] = []
        self._of_inode: dict[int, int] = {}
        self._open: dict[int, object] = {}
        self._dirty: dict[int, None] = {}
        self._names: list[_Names] = []

    @classmethod
    def holding(cls, state: Mapping[str, bytes | None], inodes: dict[str, int]) -> Disk:
        """A disk on which a state is durable.

        Args:
            state: files by path; None for a directory.
            inodes: of the files, by path.
        """
        disk = cls(())
        for path, data in state.items():
            number = DIRECTORY
            if data is not None:
                number = len(disk._images)
                disk._images.append(_Image(bytearray(data), frozen=data))
                disk._of_inode[inodes[path]] = number
            disk._tree[path] = disk._live[path] = number
        return disk

    # ---- the cut moves on ------------------------------------------------------------

    def advance(self, event: Event) -> None:
        """Take the next record of the log."""
        self.position += 1
        if event.kind is Kind.END:
            self._end(event, self._open.pop(event.id, None))
        elif event.kind is Kind.OBSERVED:
            self._observe(event, self._open.pop(event.id, None))
        elif event.kind in DATA:
            self._begin_change(event)
        elif event.kind in SYNCS:
            self._open[event.id] = self._covered(event)
        elif event.kind is not Kind.MARK:
            self._begin_names(event)

    def _begin_change(self, event: Event) -> None:
        number = self._of_inode[event.inode]
        change = _Change(
            event.kind, number, self.position, event.offset, event.length, event.data
        )
        self._images[number].pending.append(change)
        self._dirty[number] = None
        self._open[event.id] = change

    def _begin_names(self, event: Event) -> None:
        path = event.path
        moved = self._live.get(path)
        removes = ""
        entries: tuple[tuple[str, int | None], ...]
        if event.kind is Kind.CREATE:
            self._images.append(_Image())
            entries = ((path, len(self._images) - 1),)
        elif event.kind is Kind.MKDIR:
            entries = ((path, DIRECTORY),)
        elif event.kind is Kind.RENAME:
            assert moved is not None, path
            entries = ((path, None), (event.path2, moved))
        elif event.kind is Kind.LINK:
            assert moved is not None, path
            entries = ((event.path2, moved),)
        else:
            entries = ((path, None),)
            removes = path if event.kind is Kind.RMDIR else ""
        home = _parent(entries[-1][0])
        names = _Names(self.position, home, entries, removes=removes)
        self._names.append(names)
        self._open[event.id] = names

    def _end(self, event: Event, what: object) -> None:
        failed = event.offset < 0
        if isinstance(what, _Change):
            self._end_change(event, what)
        elif isinstance(what, _Names):
            self._end_names(event, what, failed)
        elif isinstance(what, tuple) and not failed:
            changes, names = what
            self._settle(changes)
            self._settle_names(names)

    def _end_change(self, event: Event, change: _Change) -> None:
        if event.offset < 0:
            if -event.offset not in _MAYBE_WRITTEN:
                self._drop(change)
            return
        change.ended = True
        if change.kind in (Kind.WRITE, Kind.WRITE_DSYNC):
            change.data = change.data[: event.offset]
            change.length = len(change.data)
        if change.kind is Kind.WRITE_DSYNC:
            pending = self._images[change.image].pending
            if pending[0] is change:
                self._settle([change])
            else:
                # What was there before it and is not durable must not come on top.
                change.sure = True

    def _drop(self, change: _Change) -> None:
        image = self._images[change.image]
        image.pending = [c for c in image.pending if c is not change]
        if not image.pending:
            self._dirty.pop(change.image, None)

    def _observe(self, event: Event, what: object) -> None:
        """A process was killed in this call: what it left has been looked at."""
        if isinstance(what, _Names):
            self._end_names(event, what, event.offset < 0)
        elif isinstance(what, _Change) and event.offset >= 0:
            what.ended = True
            if what.kind is Kind.TRUNCATE:
                what.offset = event.offset
            else:
                what.kind = Kind.WRITE
                what.data = event.data
                what.length = len(event.data)

    def _end_names(self, event: Event, names: _Names, failed: bool) -> None:
        names.ended = True
        if failed:
            self._names = [n for n in self._names if n is not names]
            return
        if event.length:
            number = names.entries[0][1]
            assert number is not None
            self._of_inode[event.length] = number
        for path, value in names.entries:
            if value is None:
                self._live.pop(path, None)
            else:
                self._live[path] = value

    def _covered(self, event: Event) -> tuple[list[_Change], list[_Names]]:
        """What a sync that begins now will have made durable when it ends."""
        numbers: Iterable[int] = ()
        if event.kind is Kind.SYNC:
            # Another thread may sync a file whose creation has not returned yet.
            number = self._of_inode.get(event.inode)
            numbers = () if number is None else (number,)
        elif event.kind is Kind.SYNCFS:
            numbers = list(self._dirty)
        changes = [
            change
            for number in numbers
            for change in self._images[number].pending
            if change.ended
        ]
        names = [
            names
            for names in self._names
            if names.ended
            and (
                event.kind is Kind.SYNCFS
                or (event.kind is Kind.SYNCDIR and names.home == event.path)
            )
        ]
        return changes, names

    def _settle(self, changes: list[_Change]) -> None:
        for change in changes:
            image = self._images[change.image]
            if not any(c is change for c in image.pending):
                continue  # another sync was faster
            image.pending = [c for c in image.pending if c is not change]
            _apply(image.base, change)
            image.frozen = None
            if not image.pending:
                self._dirty.pop(change.image, None)

    def _settle_names(self, names: list[_Names]) -> None:
        for change in names:
            if not any(n is change for n in self._names):
                continue
            self._names = [n for n in self._names if n is not change]
            for path, value in change.entries:
                _enter(self._tree, path, value)
            if change.removes:
                self._forget(change.removes, change.begun)

    def _forget(self, directory: str, begun: int) -> None:
        """A directory is durably gone, and so is all that was in it."""
        inside = directory + "/"
        for path in [p for p in self._tree if p.startswith(inside)]:
            del self._tree[path]
        self._names = [
            n
            for n in self._names
            if n.begun > begun or not (n.home + "/").startswith(inside)
        ]

    # ---- a state ---------------------------------------------------------------------

    def first_pending(self) -> int:
        """Position at which the oldest pending change was begun."""
        begun = [n.begun for n in self._names[:1]]
        begun += [self._images[n].pending[0].begun for n in self._dirty]
        return min(begun, default=self.position)

    def state(self, dice: Dice) -> dict[str, bytes | None]:
        """Throw the dice for all that is pending.

        Returns:
            The files by path; None for a directory.
        """
        rng = random.Random(dice.seed ^ 0x5EED)
        tree = dict(self._tree)
        for names in self._names:
            if names.begun > dice.until or rng.random() >= dice.keep:
                continue
            if names.removes and any(p.startswith(names.removes + "/") for p in tree):
                continue  # not empty: so it fails, or its unlinks are not there yet
            for path, value in names.entries:
                _enter(tree, path, value)
        changed = {n: self._shake(self._images[n], dice, rng) for n in self._dirty}
        state: dict[str, bytes | None] = {}
        for path in sorted(tree):
            parent = _parent(path)
            if parent and parent not in state:
                continue  # its directory was lost
            number = tree[path]
            if number == DIRECTORY:
                state[path] = None
            else:
                found = changed.get(number)
                state[path] = (
                    found if found is not None else self._images[number].durable()
                )
        return state

    def running(self) -> dict[str, bytes | None]:
        """What a system that runs sees: everything, in order."""
        state: dict[str, bytes | None] = {}
        for path, number in self._live.items():
            if number == DIRECTORY:
                state[path] = None
                continue
            image = self._images[number]
            found = bytearray(image.base)
            for change in image.pending:
                _apply(found, change)
            state[path] = bytes(found)
        return state

    def _shake(self, image: _Image, dice: Dice, rng: random.Random) -> bytes:
        found = bytearray(image.base)
        for change in image.pending:
            if change.sure:
                _apply(found, change)
                continue
            if change.begun > dice.until or rng.random() >= dice.keep:
                continue
            if change.kind is Kind.TRUNCATE or rng.random() >= dice.tear:
                _apply(found, change)
            else:
                _tear(found, change, rng)
        return image.durable() if found == image.base else bytes(found)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _enter(tree: dict[str, int], path: str, value: int | None) -> None:
    if value is None:
        tree.pop(path, None)
    else:
        tree[path] = value


def _apply(data: bytearray, change: _Change) -> None:
    start, end = change.offset, change.offset + change.length
    if change.kind is Kind.TRUNCATE:
        del data[change.offset :]
        data.extend(bytes(change.offset - len(data)))
    elif change.kind is Kind.PUNCH:
        end = min(end, len(data))
        if start < end:
            data[start:end] = bytes(end - start)
    elif start < end:  # a process may have died before it wrote anything
        data.extend(bytes(max(0, end - len(data))))
        data[start:end] = change.data


def _tear(data: bytearray, change: _Change, rng: random.Random) -> None:
    """Apply some of the units of a write or punch; its size may come short too."""
    start, end = change.offset, change.offset + change.length
    before = len(data)
    if change.kind is Kind.PUNCH:
        end = min(end, before)
    elif start < end:
        data.extend(bytes(max(0, end - before)))
    share = rng.random()
    last = before
    for unit in range(start - start % UNIT, end, UNIT):
        if rng.random() >= share:
            continue
        low, high = max(unit, start), min(unit + UNIT, end)
        if change.kind is Kind.PUNCH:
            data[low:high] = bytes(high - low)
        else:
            data[low:high] = change.data[low - start : high - start]
        last = max(last, high)
    if rng.random() < 0.5:
        del data[last:]
