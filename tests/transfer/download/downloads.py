"""What tests of downloads share: a directory, a store and a checkpoint that outlive the processes that use them."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import Fuse, FusedCheckpoint, FusedStore, RecordingStore, blob, tiny_store
from tests.transfer.bench import KEY, PART, StopAfter, ToldCheckpoint, saved
from worker.errors import LeaseLostError
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint
from worker.transfer.download.blob_download import download
from worker.transfer.download.destination import FileDestination
from worker.transfer.download.file_target import FileTarget
from worker.transfer.parts import PartThreads
from worker.transfer.sources.blob_source import BlobSource
from worker.transfer.sources.source import Source
from worker.transfer.stop import Interrupted

DATA = bytes(range(35))
OLD = b"the old file"
STEPS = {"look", "link", "names", "create", "open_file", "rename", "remove", "sync"}  #: of a destination


class FusedDestination(FileDestination):
    """Every step in the directory may be the last of this process. ``after`` is told of each that was done."""

    fuse = Fuse()
    after: Callable[[str], None] = staticmethod(lambda step: None)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in STEPS:
            return found

        def step(*args: Any, **keywords: Any) -> Any:
            try:
                return found(*args, **keywords)
            finally:
                self.after(name)

        return lambda *args, **keywords: self.fuse.call(name, lambda: step(*args, **keywords))


class World:
    """What outlives a process. Each run has the next token, as a claim gives it."""

    def __init__(self, root: Path, data: bytes = DATA, old: bytes | None = None, *, offset: int = 0) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.path = root / "7.mp4"
        self.offset = offset
        self.old, self.new = old, data[offset:]
        self.memory: MemoryStore = tiny_store()
        self.memory.put(KEY, data)
        if old is not None:
            self.path.write_bytes(old)
        self.recording = RecordingStore(self.memory)
        self.checkpoint = MemoryCheckpoint("f" * 32)
        self.token = 0

    def destination(self) -> FusedDestination:
        """The file, as another process opens it."""
        return FusedDestination.open(self.path.as_uri(), [self.root])

    def fenced(self) -> Checkpoint:
        """The checkpoint of the run that begins now, useless once a later run has begun."""
        self.token += 1
        mine = self.token

        def check(name: str) -> None:
            if self.token != mine:
                raise LeaseLostError("a later run owns the job")

        return ToldCheckpoint(self.checkpoint, check)

    def run(
        self,
        *,
        store: Store | None = None,
        source: Source | None = None,
        checkpoint: Checkpoint | None = None,
        destination: FusedDestination | None = None,
        threads: int = 1,
        part_size: int = PART,
        buffer_size: int = 0,
        checksum: str | None = None,
        **how: Any,
    ) -> None:
        """One run of a job, as the runner does it: the commit of an earlier run is resolved first."""
        with (
            closing(PartThreads(threads, buffer_size or part_size)) as part_threads,
            closing(destination or self.destination()) as opened,
        ):
            fenced = checkpoint or self.fenced()
            target = FileTarget(destination=opened, checkpoint=fenced, token=self.token, threads=part_threads, **how)
            if not target.resolve_commit():
                source = source or BlobSource(store or self.recording, KEY, "blob://test/" + KEY)
                download(target, source, self.offset, part_size=part_size, checksum=checksum)

    def finish(self, **how: Any) -> None:
        """A run that gets to the end."""
        self.run(**how)
        self.assert_all_is_well()

    def life(self, fuse: Fuse, **how: Any) -> None:
        """A run that may die at any call of the store, the checkpoint or the directory."""
        destination = self.destination()
        destination.fuse = fuse
        destination.after = self._see
        fused = FusedStore(self.memory, fuse, key=KEY, allowed={blob(self.memory, KEY)})
        recording = RecordingStore(fused)
        recording.calls = self.recording.calls
        self.run(store=recording, checkpoint=FusedCheckpoint(self.fenced(), fuse), destination=destination, **how)

    def _see(self, step: str) -> None:
        assert self.seen() in (self.old, self.new), step

    def seen(self) -> bytes | None:
        """What a reader of the file gets; None for nothing."""
        return self.path.read_bytes() if self.path.exists() else None

    def partials(self) -> list[str]:
        """Names in the directory that are not the file's."""
        return sorted(set(os.listdir(self.root)) - {self.path.name})

    def fetched(self) -> list[int]:
        """Where each range began that was fetched, in the file."""
        return [call.args[1] - self.offset for call in self.recording.named("get")]

    @property
    def partial(self) -> Path:
        """The only partial file."""
        (name,) = self.partials()
        return self.root / name

    def assert_all_is_well(self, deaths: int = 0) -> None:
        assert (self.seen(), self.partials(), self.checkpoint.abandoned) == (self.new, [], [])
        upload = saved(self.checkpoint)
        with closing(self.destination()) as destination:
            assert (upload.state, upload.etag) == ("completed", destination.look().etag)


def interrupt(world: World, parts: int = 2, *, part_size: int = PART) -> None:
    """A run that is stopped after so many parts."""
    fetched, recorded = len(world.fetched()), world.checkpoint.bytes_sent
    with pytest.raises(Interrupted):
        world.run(stop=StopAfter(parts), part_size=part_size)
    assert len(world.fetched()) - fetched == parts
    assert -(-(world.checkpoint.bytes_sent - recorded) // part_size) == parts  # each has a row
