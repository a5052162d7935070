"""Multipart uploads that vanish on the way, by a lifecycle rule or by somebody's hand."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.doubles import BytesSource, HookedStore, RecordingStore, RuledStore
from tests.transfer.bench import KEY, Bench, at, saved
from worker.errors import OutcomeUnknownError, PermissionDeniedError, StoreError, TooManyRestartsError
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import MAX_RESTARTS, VisibleVersion
from worker.transfer.sources.source import MemorySource
from worker.transfer.sources.splice import Splice
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import CopiedPrefix, Copying

OURS = bytes(range(95))
BEFORE = b"the old blob, of which the beginning stays"
COPYING = Copying(threshold=1, part_size=10, threads=2)


class ByParts(Bench):
    """A transfer in parts, over an old blob."""

    expected = OURS
    verb = "upload_part"

    def run(self, store: Store) -> None:
        self.write(OURS, store)

    def assert_all_is_well(self) -> None:
        assert (self.blob, self.unfinished) == (self.expected, [])


class Append(ByParts):
    """The store copies the beginning, the rest is sent."""

    expected = BEFORE[:20] + OURS

    def run(self, store: Store) -> None:
        seen = self.memory.head(KEY)
        source, onto = Splice(MemorySource(BEFORE), 20, BytesSource(OURS)), VisibleVersion.of(seen)
        self.write(source, store, head=CopiedPrefix.of(seen, 20), copying=COPYING, onto=onto)


class MoveInParts(ByParts):
    """The store copies all of it."""

    verb = "copy_part"

    def run(self, store: Store) -> None:
        self.write(OURS, store, head=CopiedPrefix.of(self.memory.head("source")), copying=COPYING)


@pytest.fixture(params=[ByParts, Append, MoveInParts])
def scene(request: pytest.FixtureRequest, engine: Engine, memory: MemoryStore) -> ByParts:
    memory.put(KEY, BEFORE)
    memory.put("source", OURS)
    made: ByParts = request.param(engine, memory)
    return made


def vanishing(scene: ByParts, verb: str, *calls: int) -> HookedStore:
    """Abort all uploads right before some calls of the verb; before each without ``calls``."""
    return HookedStore(scene.memory, before=at(scene.verb if verb == "parts" else verb, scene.abort_all, *calls))


def die() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(("verb", "call"), [("parts", 1), ("parts", 3), ("complete_upload", 1)])
def test_an_upload_that_vanishes_on_the_way_is_begun_again(verb: str, call: int, scene: ByParts) -> None:
    scene.run(vanishing(scene, verb, call))
    scene.assert_all_is_well()


def test_an_upload_that_vanished_between_two_runs_is_begun_again_with_every_part(scene: ByParts) -> None:
    with pytest.raises(ZeroDivisionError):
        scene.run(HookedStore(scene.memory, before=at("complete_upload", die, 1)))
    scene.abort_all()
    store = RecordingStore(scene.memory)
    scene.run(store)
    scene.assert_all_is_well()
    copied = sum(call.args[5] for call in store.named("copy_part"))
    assert copied + sum(len(data) for _, data in store.sent()) == len(scene.expected)  # of the first, nothing is left


@pytest.mark.parametrize("verb", ["parts", "complete_upload"])
def test_an_upload_that_vanishes_again_and_again_ends_the_job_over_the_old_blob(verb: str, scene: ByParts) -> None:
    store = RecordingStore(vanishing(scene, verb))
    with pytest.raises(TooManyRestartsError):
        scene.run(store)
    assert len(store.named("create_upload")) == MAX_RESTARTS + 1
    assert (scene.blob, scene.unfinished) == (BEFORE, [])


@pytest.mark.parametrize(
    ("age", "lifetime", "is_explained"),
    [
        (timedelta(days=8), timedelta(days=7), True),
        (timedelta(days=6), timedelta(days=7), False),
        (timedelta(days=8), None, False),
        (timedelta(days=8), PermissionDeniedError("no"), False),
    ],
)
def test_an_upload_gone_at_its_completion_is_begun_again_only_if_a_rule_explains_it(
    age: timedelta, lifetime: timedelta | StoreError | None, is_explained: bool, bench: Bench
) -> None:
    """Otherwise it may have been completed, and the new blob deleted since."""
    with pytest.raises(ZeroDivisionError):
        bench.write(OURS, HookedStore(bench.memory, before=at("complete_upload", die, 1)))
    upload = saved(bench.checkpoint)
    bench.checkpoint.upload = replace(upload, opened_at=upload.opened_at - age)
    bench.abort_all()

    store = RuledStore(bench.memory, lifetime)
    with nullcontext() if is_explained else pytest.raises(OutcomeUnknownError):
        bench.write(OURS, store)
    assert bench.blob == (OURS if is_explained else None)
