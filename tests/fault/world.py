# SPDX-License-Identifier: Apache-2.0
"""The scripted work that meets the faults: each operation is done, or fails cleanly.

A bystander volume that was there before goes on all the time.  Every operation keeps
the model (`model.Expected`) in step with what the instance says, and fails the run if
an operation raises anything but one of the product's errors, or if bytes come back that
cannot be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from archipelago import Client, Volume
from archipelago.errors import ArchipelagoError, LeaseLost
from archipelago.images.import_ import import_image
from tests.fault.model import UNIT, Expected, WrongData, filled
from tests.fault.plan import Counts

BLOCK = 64 << 10
SECTOR = 4096
SIZE = 4 * BLOCK
TRIES = 4
BYSTANDER = "bystander"


class NotClean(AssertionError):
    """An operation failed in a way that it must not."""


class World:
    """Volumes of one instance, and what they may hold.

    Args:
        client: of the instance.
        counts: how many calls have failed so far.
        tidy: does a round of what runs in the background otherwise.
        image: a file to import; made when it is needed.

    Attributes:
        known: what each volume may hold.
        patient: an operation that failed must succeed when it is tried again.
        errors: every error that was met, with what was done.
        doubtful: names whose change failed: they are there after a restart, or not.
    """

    def __init__(
        self,
        client: Client,
        counts: Callable[[], Counts],
        tidy: Callable[[], None],
        image: Path,
    ) -> None:
        self.known: dict[str, Expected] = {}
        self.patient = True
        self.errors: list[tuple[str, ArchipelagoError]] = []
        self.doubtful: set[str] = set()
        self._open: dict[str, Volume] = {}
        self._client = client
        self._counts = counts
        self._tidy = tidy
        self._image = image
        self._numbers = itertools.count(1)
        self._hurt = False

    def join(self, client: Client) -> None:
        """Go on with another life of the instance: it knows how changes ended."""
        self._client = client
        for expected in self.known.values():
            expected.unsure()
        self.check_names()
        for name in self.known:
            self._reconcile(name)

    def use(self, name: str) -> bool:
        """True if there is such a volume and it can be opened."""
        return name in self.known and self._handle(name) is not None

    # ---- trying ----------------------------------------------------------------------

    def _try(self, what: str, deed: Callable[[], object]) -> bool:
        """Do something, as often as it takes if it must succeed."""
        tries = TRIES if self.patient else 1
        for left in range(tries - 1, -1, -1):
            try:
                deed()
            except ArchipelagoError as error:
                self.errors.append((what, error))
                if self.patient and left == 0:
                    raise NotClean(f"{what} goes on failing: {error}") from error
                if left:
                    self._tidy()
            else:
                return True
        return False

    def _change(self, what: str, deed: Callable[[], object], done: str) -> bool:
        """As `_try`, of a change after which there is a volume called `done`."""

        def once() -> None:
            try:
                deed()
            except ArchipelagoError:
                # An error may come after the deed; then it is done.
                if not self._listed(done):
                    raise

        ok = self._try(what, once)
        if not ok:
            self.doubtful.add(done)
        return ok

    def _listed(self, name: str) -> bool:
        """True if there is such a name, even if what it names cannot be relied upon."""
        lists: list[set[str]] = []
        self._try("list", lambda: lists.append({i.name for i in self._client.list()}))
        if not lists:
            raise NotClean(f"names cannot be listed: {self.errors[-1]}")
        return name in lists[0]

    def _handle(self, name: str) -> Volume | None:
        if name not in self._open:
            opened: list[Volume] = []
            if not self._try("open", lambda: opened.append(self._client.open(name))):
                return None
            self._open[name] = opened[0]
        return self._open[name]

    def _on(self, what: str, name: str, deed: Callable[[Volume], object]) -> bool:
        """Do something with an open volume; one that was stopped is opened again."""

        def once() -> None:
            handle = self._handle(name)
            if handle is None:
                raise LeaseLost(f'"{name}" cannot be opened')
            try:
                deed(handle)
            except LeaseLost:
                self.close(name)
                self.known[name].unsure()
                raise

        return self._try(what, once)

    # ---- contents --------------------------------------------------------------------

    def write(
        self, name: str, offset: int, size: int, *, durable: bool = False
    ) -> bool:
        """Write whole units; not beyond the end that a failed resize left."""
        if not self.use(name):
            return False
        expected = self.known[name]
        if offset + size > expected.size:
            return False
        number = next(self._numbers)
        expected.written(offset, size, number, ok=False)
        data = filled(number, size)
        ok = self._on("write", name, lambda v: v.pwrite(data, offset, durable=durable))
        if ok:
            expected.written(offset, size, number, ok=True)
        if ok and durable:
            expected.flushed()  # FUA is a write and a flush
        return ok

    def zero(self, name: str, offset: int, size: int) -> None:
        """Discard whole units."""
        if not self.use(name):
            return
        expected = self.known[name]
        expected.written(offset, size, 0, ok=False)
        if self._on("discard", name, lambda v: v.discard(offset, size)):
            expected.written(offset, size, 0, ok=True)

    def flush(self, name: str) -> bool:
        """Flush."""
        if not self.use(name):
            return False
        ok = self._on("flush", name, Volume.flush)
        if ok:
            self.known[name].flushed()
        return ok

    def read(self, name: str) -> bool:
        """Read and compare all."""
        if not self.use(name):
            return False
        expected = self.known[name]
        got: list[bytes] = []
        if not self._on("read", name, lambda v: got.append(v.pread(v.size, 0))):
            return False
        expected.check(got[-1])
        return True

    def close(self, name: str) -> None:
        """Close, which flushes."""
        handle = self._open.pop(name, None)
        if handle is None:
            return
        expected = self.known[name]
        try:
            handle.close()
        except ArchipelagoError as error:
            self.errors.append(("close", error))
            expected.unsure()
        else:
            expected.flushed()

    # ---- volumes ---------------------------------------------------------------------

    def create(self, name: str) -> None:
        """Create an empty volume."""
        if self._change(
            "create",
            lambda: self._client.create(name, SIZE, block_size=BLOCK),
            name,
        ):
            self.known[name] = Expected.zeros(name, SIZE)

    def snapshot(self, name: str, snapshot: str) -> None:
        """Take a snapshot."""
        if not self.use(name):
            return
        source = self.known[name]
        if self._change(
            "snapshot", lambda: self._client.snapshot(name, snapshot), snapshot
        ):
            self.known[snapshot] = source.copy(snapshot, read_only=True)
            self._reconcile(name)

    def clone(self, snapshot: str, name: str) -> None:
        """Clone a snapshot."""
        if snapshot not in self.known:
            return
        if self._change(
            "clone", lambda: self._client.create(name, snap=snapshot), name
        ):
            self.known[name] = self.known[snapshot].copy(name, read_only=False)

    def import_(self, name: str) -> None:
        """Import the image: one block of it has data."""
        number = next(self._numbers)
        self._image.write_bytes(filled(number, BLOCK) + bytes(BLOCK))
        if self._change(
            "import",
            lambda: import_image(self._client, self._image, name, False, BLOCK),
            name,
        ):
            expected = Expected.zeros(name, 2 * BLOCK)
            expected.written(0, BLOCK, number, ok=True)
            expected.flushed()
            expected.read_only = True
            self.known[name] = expected

    def rename(self, old: str, new: str) -> None:
        """Rename."""
        if old not in self.known:
            return
        if self._change("rename", lambda: self._client.rename(old, new), new):
            expected = self.known.pop(old)
            expected.name = new
            self.known[new] = expected
            if old in self._open:
                self._open[new] = self._open.pop(old)
        elif not self._listed(old):
            self._doubt(old)

    def resize(self, name: str, size: int) -> None:
        """Resize to whole units [bytes]."""
        if name not in self.known:
            return
        self._try("resize", lambda: self._client.resize(name, size))
        self._reconcile(name)

    def remove(self, name: str) -> None:
        """Remove."""
        if name not in self.known:
            return
        self.close(name)
        if not self._listed(name):
            self._doubt(name)
            return

        def once() -> None:
            if self._listed(name):
                self._client.remove(name)

        if self._try("remove", once):
            del self.known[name]
        elif not self._listed(name):
            self._doubt(name)

    def _doubt(self, name: str) -> None:
        """A change of a name failed, and it cannot be seen any more."""
        del self.known[name]
        self.doubtful.add(name)

    def _reconcile(self, name: str) -> None:
        """A change that failed may have changed the size, or stopped the volume."""
        expected = self.known[name]
        sizes: list[int] = []
        client = self._client
        self._try("info", lambda: sizes.append(client.info(name, usage=False).size))
        if sizes and sizes[0] != expected.size:
            expected.resized(sizes[0])

    # ---- the script ------------------------------------------------------------------

    def prepare(self) -> None:
        """What is there before anything fails."""
        self.create(BYSTANDER)
        self.write(BYSTANDER, 0, SIZE)
        self.flush(BYSTANDER)
        self._tidy()

    def bystand(self) -> None:
        """Nothing but a failure of its own calls may hurt the bystander."""
        before = self._counts().struck
        patient, self.patient = self.patient, False
        ok = self.write(BYSTANDER, BLOCK, SECTOR)
        ok = self.flush(BYSTANDER) and ok
        ok = self.read(BYSTANDER) and ok
        self.patient = patient
        if not ok and self._counts().struck == before and not self._hurt:
            raise NotClean(f"the bystander was hurt: {self.errors[-1]}")
        self._hurt = self._hurt or not ok

    def run(self) -> None:
        """All kinds of work."""
        self.create("a")
        self.write("a", 0, 2 * SECTOR)
        self.write("a", 3 * UNIT, UNIT)
        self.write("a", BLOCK, 2 * BLOCK)
        self.flush("a")
        self.write("a", SECTOR, 3 * SECTOR)
        self.bystand()
        self.snapshot("a", "s")
        self.write("a", 0, SECTOR)
        self.clone("s", "c")
        self.write("c", UNIT, SECTOR)
        self.read("c")
        self.zero("a", BLOCK, BLOCK)
        self.write("a", 3 * BLOCK, SECTOR, durable=True)
        self.flush("a")
        self.flush("c")
        self.bystand()
        self._tidy()
        self.resize("a", SIZE + BLOCK)
        self.write("a", SIZE - SECTOR, 2 * SECTOR)
        self.read("a")
        self.resize("a", 3 * BLOCK + UNIT)
        self.rename("s", "t")
        self.import_("i")
        self.bystand()
        self.close("a")
        self.read("a")
        self.write("a", 0, UNIT)
        self._tidy()
        self.remove("c")
        self.remove("t")
        self._tidy()
        self.bystand()
        self.read("a")
        self.read("i")
        self.flush("a")

    def prove_usable(self) -> None:
        """With nothing failing any more everything can be done again."""
        for name in list(self.known):
            self.read(name)
            if not self.known[name].read_only:
                self.write(name, 2 * SECTOR, SECTOR)
                self.flush(name)
        self.create("z")
        self.write("z", 0, BLOCK)
        self.flush("z")
        self.snapshot("z", "zs")
        self._tidy()
        self.read("z")
        self.remove("z")
        self.remove("zs")

    def check_names(self, *, hidden: bool = False) -> None:
        """Exactly the volumes that should be there are.

        Args:
            hidden: those in a directory whose sync failed may be left out, or have no
                name; they come back with a restart.
        """
        found = {info.name for info in self._client.list()}
        if hidden:
            found = {name for name in found if not name.startswith("(header ")}
        missing = set(self.known) - found - self.doubtful
        if found - self.doubtful - set(self.known) or (missing and not hidden):
            raise WrongData(f"there are {sorted(found)}, not {sorted(self.known)}")

    def end(self) -> None:
        """Close everything."""
        for name in list(self._open):
            self.close(name)

    def check_errors(self, allowed: tuple[type[ArchipelagoError], ...]) -> None:
        """Each operation that failed said why; with (), none may have failed."""
        for what, error in self.errors:
            if not isinstance(error, allowed):
                raise NotClean(f"{what}: {type(error).__name__}: {error}")
