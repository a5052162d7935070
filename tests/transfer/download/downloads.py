"""What tests of downloads share: a directory, a store and a checkpoint that outlive the processes that use them."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import Fuse, FusedCheckpoint, FusedStore, RecordingStore, blob, tiny_store
from tests.transfer.bench import KEY, PART, StopAfter
from worker.errors import LeaseLostError
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint, VisibleVersion
from worker.transfer.download.blob_download import download
from worker.transfer.download.destination import FileDestination
from worker.transfer.download.file_target import FileTarget
from worker.transfer.parts import PartThreads
from worker.transfer.sources.blob_source import BlobSource
from worker.transfer.sources.source import Source
from worker.transfer.stop import Interrupted, Stop, never

MARK = "f" * 32
DATA = bytes(range(35))
OLD = b"the old file"


class FusedDestination(FileDestination):
    """Every step in the directory may be the last of this process. ``after`` is told of each that was done."""

    fuse = Fuse()
    after: Callable[[str], None] = staticmethod(lambda step: None)

    def _do(self, name: str, *args: Any, **keywords: Any) -> Any:
        def work() -> Any:
            try:
                return getattr(FileDestination, name)(self, *args, **keywords)
            finally:
                self.after(name)

        return self.fuse.call(name, work)

    def look(self) -> VisibleVersion:
        return self._do("look")  # type: ignore[no-any-return]

    def link(self, name: str) -> bool:
        return self._do("link", name)  # type: ignore[no-any-return]

    def names(self) -> list[str]:
        return self._do("names")  # type: ignore[no-any-return]

    def create(self, name: str, mode: int) -> int:
        return self._do("create", name, mode)  # type: ignore[no-any-return]

    def open_file(self, name: str, *, writing: bool = False) -> int | None:
        return self._do("open_file", name, writing=writing)  # type: ignore[no-any-return]

    def rename(self, old: str, new: str) -> bool:
        return self._do("rename", old, new)  # type: ignore[no-any-return]

    def remove(self, name: str) -> None:
        self._do("remove", name)

    def sync(self) -> None:
        self._do("sync")


class FencedCheckpoint:
    """A checkpoint as one run has it: useless once a later run has begun."""

    def __init__(self, checkpoint: Checkpoint, is_mine: Callable[[], bool]) -> None:
        self.mark = checkpoint.mark
        self._checkpoint = checkpoint
        self._is_mine = is_mine

    def __getattr__(self, name: str) -> Any:
        if not self._is_mine():
            raise LeaseLostError("a later run owns the job")
        return getattr(self._checkpoint, name)


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
        self.checkpoint = MemoryCheckpoint(MARK)
        self.token = 0

    def destination(self) -> FusedDestination:
        """The file, as another process opens it."""
        return FusedDestination.open(self.path.as_uri(), [self.root])

    def fenced(self) -> Checkpoint:
        """The checkpoint of the run that begins now."""
        self.token += 1
        mine = self.token
        return FencedCheckpoint(self.checkpoint, lambda: self.token == mine)

    def target(
        self, destination: FileDestination, threads: PartThreads, checkpoint: Checkpoint | None = None, **how: Any
    ) -> FileTarget:
        """The target of a run; one that begins now, unless its checkpoint is given."""
        checkpoint = checkpoint or self.fenced()
        return FileTarget(destination=destination, checkpoint=checkpoint, token=self.token, threads=threads, **how)

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
        overwrite: bool = True,
        checksum: str | None = None,
        stop: Stop = never,
    ) -> None:
        """One run of a job, as the runner does it: the commit of an earlier run is resolved first."""
        part_threads = PartThreads(threads, buffer_size or part_size)
        with closing(destination or self.destination()) as opened:
            target = self.target(opened, part_threads, checkpoint, overwrite=overwrite, stop=stop)
            try:
                if not target.resolve_commit():
                    source = source or BlobSource(store or self.recording, KEY, "blob://test/" + KEY)
                    download(target, source, self.offset, part_size=part_size, checksum=checksum)
            finally:
                part_threads.close()

    def life(self, fuse: Fuse, *, threads: int = 1, overwrite: bool = True) -> None:
        """A run that may die at any call of the store, the checkpoint or the directory."""
        destination = self.destination()
        destination.fuse = fuse
        destination.after = self._see
        fused = FusedStore(self.memory, fuse, key=KEY, allowed={blob(self.memory, KEY)})
        recording = RecordingStore(fused)
        recording.calls = self.recording.calls
        self.run(
            store=recording,
            checkpoint=FusedCheckpoint(self.fenced(), fuse),
            destination=destination,
            threads=threads,
            overwrite=overwrite,
        )

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

    def assert_all_is_well(self, deaths: int = 0) -> None:
        assert self.seen() == self.new
        assert self.partials() == []
        upload = self.checkpoint.upload
        assert upload is not None
        with closing(self.destination()) as destination:
            assert (upload.state, upload.etag) == ("completed", destination.look().etag)
        assert self.checkpoint.abandoned == []


def interrupt(world: World, parts: int = 2, *, part_size: int = PART) -> None:
    """A run that is stopped after so many parts."""
    fetched, recorded = len(world.fetched()), world.checkpoint.bytes_sent
    with pytest.raises(Interrupted):
        world.run(stop=StopAfter(parts), part_size=part_size)
    assert len(world.fetched()) - fetched == parts
    assert -(-(world.checkpoint.bytes_sent - recorded) // part_size) == parts  # each has a row
