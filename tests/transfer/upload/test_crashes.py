"""The crash matrix: the process dies at every call to the store or the checkpoint, before or after it had its effect.

Whatever the moment, a fresh engine on the same checkpoint brings the same bytes, readers see the old blob or the new
one and nothing else, and no unfinished upload is left.
"""

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
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.upload.engine import Engine

KEY = "videos/7.mp4"
PART = 10
MOST_CALLS = 200


@dataclass(frozen=True)
class Scene:
    """What is written, over what, by how many threads."""

    size: int
    old: bytes | None
    threads: int

    @property
    def new(self) -> bytes:
        return bytes(range(self.size))


PUT = Scene(7, None, 1)
PUT_OVER = Scene(7, b"the old blob", 1)
PARTS = Scene(35, None, 1)
PARTS_OVER = Scene(35, b"the old blob", 1)
MANY_OVER = Scene(75, b"the old blob", 3)
SCENES = {
    "a put": PUT,
    "a put over an old blob": PUT_OVER,
    "parts": PARTS,
    "parts over an old blob": PARTS_OVER,
    "many parts by three threads": MANY_OVER,
}


class World:
    """What outlives a process: the store and the checkpoint."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.memory: MemoryStore = tiny_store()
        if scene.old is not None:
            self.memory.put(KEY, scene.old)
        self.recording = RecordingStore(self.memory)
        self.checkpoint = MemoryCheckpoint("the mark of this job")
        self.torn: list[tuple[str, bytes | None]] = []

    def live(self, fuse: Fuse) -> bool:
        """One process; True if it got to the end."""
        store = FusedStore(self.recording, fuse, key=KEY, allowed={self.scene.old, self.scene.new})
        engine = Engine(part_size=PART, part_threads=self.scene.threads)
        try:
            self._write(engine, store, fuse)
        except DeathError:
            return False
        finally:
            engine.close()
            self.torn += store.torn
        return True

    def _write(self, engine: Engine, store: Store, fuse: Fuse) -> None:
        checkpoint = FusedCheckpoint(self.checkpoint, fuse)
        write(engine, store, KEY, BytesSource(self.scene.new), checkpoint=checkpoint)

    def assert_all_is_well(self, deaths: int) -> None:
        assert self.torn == []
        assert blob(self.memory, KEY) == self.scene.new
        assert unfinished(self.memory) == []
        assert self.checkpoint.unfinished() == []
        assert self.checkpoint.upload is not None
        assert self.checkpoint.upload.etag == self.memory.head(KEY).etag
        sent = sum(len(call.data or b"") for call in self.recording.named("upload_part"))
        # What had landed is adopted: only parts whose call died without effect go out again.
        assert sent <= self.scene.size + deaths * self.scene.threads * PART


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_any_call_loses_and_tears_nothing(scene: Scene, when: When) -> None:
    for fail_at in range(1, MOST_CALLS):
        world, fuse = World(scene), Fuse(fail_at, when)
        finished = world.live(fuse)
        assert finished != fuse.blown, fuse.calls
        if not finished:
            assert world.live(Fuse()), fuse.calls
        world.assert_all_is_well(deaths=not finished)
        if finished:
            assert fail_at > 5
            return
    pytest.fail("it never ends")


@pytest.mark.parametrize("scene", [PUT_OVER, PARTS, PARTS_OVER], ids=["put over", "parts", "parts over"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_two_deaths_in_a_row_at_any_two_calls_lose_and_tear_nothing(scene: Scene, when: When) -> None:
    pairs = 0
    for first in range(1, MOST_CALLS):
        for second in range(1, MOST_CALLS):
            world = World(scene)
            if world.live(Fuse(first, when)):
                assert pairs > 30
                return
            # The two die at different sides of a call, so that all four mixtures occur.
            alive = world.live(Fuse(second, "after" if (first + second) % 2 else "before"))
            if not alive:
                assert world.live(Fuse())
                pairs += 1
            world.assert_all_is_well(deaths=2)
            if alive:
                break
    pytest.fail("it never ends")


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_process_that_dies_at_every_other_call_still_gets_there(scene: Scene) -> None:
    """Each life gets a few calls further than the one before it; the job ends all the same."""
    world = World(scene)
    for calls in range(1, MOST_CALLS):
        if world.live(Fuse(calls, "after")):
            world.assert_all_is_well(deaths=calls)
            return
    pytest.fail("it never ends")
