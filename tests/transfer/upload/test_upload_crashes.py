"""The crash matrix of uploads: death at every call of store and checkpoint; no unfinished upload is left."""

from dataclasses import dataclass

import pytest

from tests.doubles import (
    BytesSource,
    DeathError,
    Fuse,
    FusedCheckpoint,
    FusedStore,
    RecordingStore,
    When,
    blob,
    tiny_store,
    unfinished,
    write,
)
from tests.transfer.bench import KEY, OLD, PART, saved
from tests.transfer.crash_matrix import die_again_and_again, die_at_any_call, die_at_any_two_calls
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.upload.engine import Engine


@dataclass(frozen=True)
class Scene:
    """What is written, over what, by how many threads."""

    size: int
    old: bytes | None
    threads: int

    @property
    def new(self) -> bytes:
        return bytes(range(self.size))


SCENES = {
    "a put": Scene(7, None, 1),
    "a put over an old blob": Scene(7, OLD, 1),
    "parts": Scene(35, None, 1),
    "parts over an old blob": Scene(35, OLD, 1),
    "many parts by three threads": Scene(75, OLD, 3),
}


class World:
    """What outlives a process: the store and the checkpoint."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.memory = tiny_store()
        if scene.old is not None:
            self.memory.put(KEY, scene.old)
        self.recording = RecordingStore(self.memory)
        self.checkpoint = MemoryCheckpoint("the mark of this job")
        self.torn: list[tuple[str, bytes | None]] = []

    def live(self, fuse: Fuse) -> bool:
        store = FusedStore(self.recording, fuse, key=KEY, allowed={self.scene.old, self.scene.new})
        engine = Engine(part_size=PART, part_threads=self.scene.threads)
        try:
            checkpoint = FusedCheckpoint(self.checkpoint, fuse)
            write(engine, store, KEY, BytesSource(self.scene.new), checkpoint=checkpoint)
        except DeathError:
            return False
        finally:
            engine.close()
            self.torn += store.torn
        return True

    def assert_all_is_well(self, deaths: int) -> None:
        assert (blob(self.memory, KEY), self.torn) == (self.scene.new, [])
        assert (unfinished(self.memory), self.checkpoint.unfinished()) == ([], [])
        assert saved(self.checkpoint).etag == self.memory.head(KEY).etag
        sent = sum(len(call.data or b"") for call in self.recording.named("upload_part"))
        # What had landed is adopted: only parts whose call died without effect go out again.
        assert sent <= self.scene.size + deaths * self.scene.threads * PART


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_any_call_loses_and_tears_nothing(scene: Scene, when: When) -> None:
    die_at_any_call(lambda: World(scene), when, at_least=5)


@pytest.mark.parametrize("name", ["a put over an old blob", "parts", "parts over an old blob"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_two_deaths_in_a_row_at_any_two_calls_lose_and_tear_nothing(name: str, when: When) -> None:
    die_at_any_two_calls(lambda: World(SCENES[name]), lambda second: when, at_least=30)


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_process_that_dies_at_every_other_call_still_gets_there(scene: Scene) -> None:
    die_again_and_again(World(scene))
