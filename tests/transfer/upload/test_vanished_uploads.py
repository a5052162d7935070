"""Uploads that vanish, by a lifecycle rule or by somebody's hand: begun again from byte 0, a few times at most."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.doubles import BytesSource, HookedStore, RecordingStore, blob, tiny_store, unfinished, write
from worker.errors import OutcomeUnknownError, PermissionDeniedError, StoreError, TooManyRestartsError
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.checkpoint import MAX_RESTARTS, MemoryCheckpoint, VisibleVersion
from worker.transfer.sources.source import MemorySource, Source
from worker.transfer.sources.splice import Splice
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import CopiedPrefix, Copying

KEY = "videos/7.mp4"
OLD = b"the old blob, of which the beginning stays"
DATA = bytes(range(95))


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(part_size=10, part_threads=2)
    yield engine
    engine.close()


class Scene:
    """One kind of transfer in parts, over an old blob."""

    expected = DATA

    def __init__(self) -> None:
        self.memory: MemoryStore = tiny_store()
        self.memory.put(KEY, OLD)
        self.memory.put("source", DATA)
        self.checkpoint = MemoryCheckpoint("job")

    def run(self, engine: Engine, store: HookedStore | RecordingStore) -> None:
        write(engine, store, KEY, BytesSource(DATA), checkpoint=self.checkpoint)


class Append(Scene):
    """The store copies the beginning, the rest is sent."""

    expected = OLD[:20] + DATA

    def run(self, engine: Engine, store: HookedStore | RecordingStore) -> None:
        seen = self.memory.head(KEY)
        old: Source = MemorySource(OLD)
        source, head = Splice(old, 20, BytesSource(DATA)), CopiedPrefix.of(seen, 20)
        write(
            engine,
            store,
            KEY,
            source,
            checkpoint=self.checkpoint,
            head=head,
            copying=COPYING,
            onto=VisibleVersion.of(seen),
        )


class MoveInParts(Scene):
    """The store copies all of it."""

    def run(self, engine: Engine, store: HookedStore | RecordingStore) -> None:
        head = CopiedPrefix.of(self.memory.head("source"))
        write(engine, store, KEY, BytesSource(DATA), checkpoint=self.checkpoint, head=head, copying=COPYING)


COPYING = Copying(threshold=1, part_size=10, threads=2)
scenes = pytest.mark.parametrize("make", [Scene, Append, MoveInParts])


def vanishing(memory: MemoryStore, verb: str, calls: set[int] | None = None) -> Callable[[str], None]:
    """Abort all uploads right before some calls of the verb; before each without ``calls``."""
    seen: list[str] = []

    def before(name: str) -> None:
        if name == verb:
            seen.append(name)
            if calls is None or len(seen) in calls:
                for entry in list(memory.list_uploads()):
                    memory.abort_upload(entry.key, entry.upload_id)

    return before


def parts_of(make: type[Scene]) -> str:
    return "copy_part" if make is MoveInParts else "upload_part"


@scenes
@pytest.mark.parametrize("call", [1, 3])
def test_an_upload_that_vanishes_between_two_parts_is_begun_again(make: type[Scene], call: int, engine: Engine) -> None:
    scene = make()
    scene.run(engine, HookedStore(scene.memory, before=vanishing(scene.memory, parts_of(make), {call})))
    assert blob(scene.memory, KEY) == scene.expected
    assert unfinished(scene.memory) == []


@scenes
def test_an_upload_that_vanishes_right_before_its_completion_is_begun_again(make: type[Scene], engine: Engine) -> None:
    scene = make()
    scene.run(engine, HookedStore(scene.memory, before=vanishing(scene.memory, "complete_upload", {1})))
    assert blob(scene.memory, KEY) == scene.expected
    assert unfinished(scene.memory) == []


@scenes
def test_an_upload_that_vanished_between_two_runs_is_begun_again_with_every_part(
    make: type[Scene], engine: Engine
) -> None:
    scene = make()

    def interrupt(name: str) -> None:
        if name == "complete_upload":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scene.run(engine, HookedStore(scene.memory, before=interrupt))
    for entry in list(scene.memory.list_uploads()):
        scene.memory.abort_upload(entry.key, entry.upload_id)

    store = RecordingStore(scene.memory)
    scene.run(engine, store)
    assert blob(scene.memory, KEY) == scene.expected
    copied = sum(call.args[5] for call in store.named("copy_part"))
    assert copied + sum(len(data) for _, data in store.sent()) == len(scene.expected)  # of the first, nothing is left
    assert unfinished(scene.memory) == []


@scenes
@pytest.mark.parametrize("verb", ["parts", "complete_upload"])
def test_one_that_vanishes_again_and_again_ends_it_with_the_old_blob_in_place(
    make: type[Scene], verb: str, engine: Engine
) -> None:
    scene = make()
    before = vanishing(scene.memory, parts_of(make) if verb == "parts" else verb)
    store = RecordingStore(HookedStore(scene.memory, before=before))
    with pytest.raises(TooManyRestartsError):
        scene.run(engine, store)
    assert len(store.named("create_upload")) == MAX_RESTARTS + 1
    assert blob(scene.memory, KEY) == OLD
    assert unfinished(scene.memory) == []


class RuledStore(HookedStore):
    """A bucket with a lifecycle rule."""

    lifetime: timedelta | StoreError | None = None

    def upload_lifetime(self, key: str) -> timedelta | None:
        if isinstance(self.lifetime, StoreError):
            raise self.lifetime
        return self.lifetime


@pytest.mark.parametrize(
    ("age", "lifetime", "is_explained"),
    [
        (timedelta(days=8), timedelta(days=7), True),
        (timedelta(days=6), timedelta(days=7), False),
        (timedelta(days=8), None, False),
        (timedelta(days=8), PermissionDeniedError("no"), False),
    ],
)
def test_an_upload_of_a_new_blob_that_is_gone_at_its_completion_is_begun_again_only_where_a_rule_explains_that(
    age: timedelta, lifetime: timedelta | StoreError | None, is_explained: bool, engine: Engine
) -> None:
    """Else it may have been completed, and the blob deleted since."""
    memory, checkpoint = tiny_store(), MemoryCheckpoint("job")

    def lose_the_answer(name: str) -> None:
        if name == "complete_upload":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(engine, HookedStore(memory, before=lose_the_answer), KEY, BytesSource(DATA), checkpoint=checkpoint)
    assert checkpoint.upload is not None
    checkpoint.upload = replace(checkpoint.upload, opened_at=checkpoint.upload.opened_at - age)
    for entry in list(memory.list_uploads()):
        memory.abort_upload(entry.key, entry.upload_id)

    store = RuledStore(memory)
    store.lifetime = lifetime
    if is_explained:
        write(engine, store, KEY, BytesSource(DATA), checkpoint=checkpoint)
        assert blob(memory, KEY) == DATA
    else:
        with pytest.raises(OutcomeUnknownError):
            write(engine, store, KEY, BytesSource(DATA), checkpoint=checkpoint)
        assert blob(memory, KEY) is None
