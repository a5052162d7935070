"""Targets: what the conditions of a commit call protect, and uploads that vanish."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dev.services import create_bucket, moto
from tests.doubles import TINY, BytesSource, HookedStore, RecordingStore, RuledStore, blob, tiny_store, write
from tests.transfer.bench import KEY, Bench, at, saved
from worker.driver.delete_moved import delete_unchanged
from worker.errors import (
    OutcomeUnknownError,
    PermissionDeniedError,
    SourceChangedError,
    StoreError,
    SupersededError,
    TooManyRestartsError,
)
from worker.stores.blob_values import BlobHead, BlobOptions
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.s3.s3_store import S3Access, S3Store
from worker.stores.store import Store
from worker.transfer.checkpoint import MAX_RESTARTS, MemoryCheckpoint, VisibleVersion
from worker.transfer.sources.blob_source import version_of
from worker.transfer.sources.source import MemorySource
from worker.transfer.sources.splice import Splice
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import CopiedPrefix, Copying

OLD, NEWER, OURS = b"what was there", b"what somebody wrote meanwhile", bytes(range(95))
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    with moto(min_part_size=1) as service:
        create_bucket(service, "fencing")
        names = ("region", "endpoint", "access_key", "secret_key")
        access = S3Access(path_style=True, **{name: getattr(service, name) for name in names})
        yield S3Store(access, "fencing", limits=TINY)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "memory":
            return tiny_store()
        case "local":
            return LocalStore(tmp_path / "bucket", limits=TINY)
    found: Store = request.getfixturevalue("s3")
    return found


@pytest.fixture
def key() -> str:
    return f"videos/{next(_numbers)}.mp4"


# --- zombies ---------------------------------------------------------------------------------------------------------
#
# A run that slept through the loss of its lease, and wakes right at its commit call. Nothing can keep a suspended
# process from sending it: the store itself must refuse, by the condition that it carries.


def run(engine: Engine, store: Store, key: str, verb: str, checkpoint: MemoryCheckpoint) -> None:
    """One run of a job that commits by this verb."""
    how: dict[str, Any] = {"checkpoint": checkpoint}
    if verb == "copy":
        store.put(f"{key}.source", OURS)
        how |= {"head": CopiedPrefix.of(store.head(f"{key}.source")), "copying": Copying(threshold=1000)}
    write(engine, store, key, BytesSource(OURS[:10] if verb == "put" else OURS), **how)


def beside(store: Store, verb: str, act: Callable[[], object]) -> HookedStore:
    """A store beside which something happens right before the first call of the verb."""
    return HookedStore(store, before=at(verb, act, 1))


#: What doctor finds the stores to honour: moto ignores conditions of a copy, and If-Match of a completion.
CASES = [
    (kind, verb, base)
    for kind in ("memory", "local", "s3")
    for verb in ("put", "complete_upload", "copy")
    for base in (None, OLD)
    if kind != "s3" or verb == "put" or (verb, base) == ("complete_upload", None)
]
cases = pytest.mark.parametrize(("store", "verb", "base"), CASES, indirect=["store"])


@cases
def test_a_zombie_commits_nothing_over_a_newer_blob(
    store: Store, verb: str, base: bytes | None, key: str, engine: Engine
) -> None:
    if base is not None:
        store.put(key, base)
    zombie = beside(store, verb, lambda: store.put(key, NEWER))
    with pytest.raises(SupersededError):
        run(engine, zombie, key, verb, MemoryCheckpoint("job"))
    assert blob(store, key) == NEWER


@cases
def test_a_zombie_does_not_commit_again_after_its_successor(
    store: Store, verb: str, base: bytes | None, key: str, engine: Engine
) -> None:
    """The successor's blob is the job's own, so that all is well; it is not replaced all the same."""
    if base is not None:
        store.put(key, base)
    committed: list[BlobHead] = []

    def succeed() -> None:
        run(engine, store, key, verb, MemoryCheckpoint("job"))
        committed.append(store.head(key))

    run(engine, beside(store, verb, succeed), key, verb, MemoryCheckpoint("job"))
    assert [store.head(key)] == committed


@pytest.mark.parametrize("store", ["memory", "local", "s3"], indirect=True)
def test_a_zombie_deletes_no_newer_source(store: Store, key: str) -> None:
    store.put(key, OLD)
    version = version_of(store.head(key))
    zombie = beside(store, "delete_batch", lambda: store.put(key, NEWER))
    with pytest.raises(SourceChangedError):
        delete_unchanged(zombie, key, version, "/a")
    assert blob(store, key) == NEWER


@pytest.mark.parametrize("store", ["memory", "local", "s3"], indirect=True)
@pytest.mark.parametrize("meanwhile", ["replaced", "deleted", "the same bytes again", "created"])
def test_an_upload_that_was_opened_before_the_destination_changed_is_not_completed(
    store: Store, meanwhile: str, key: str, engine: Engine
) -> None:
    if meanwhile != "created":
        store.put(key, OLD)

    def change() -> None:
        if meanwhile == "deleted":
            store.delete_batch([key])
        else:
            # A mark of its own: some stores date by the second, and know versions by ETag and date.
            store.put(key, OLD if meanwhile == "the same bytes again" else NEWER, options=BlobOptions("text/plain"))

    recorded, checkpoint = RecordingStore(store), MemoryCheckpoint("job")
    run(engine, beside(recorded, "upload_part", change), key, "complete_upload", checkpoint)
    assert blob(store, key) == OURS
    opened = len(recorded.named("create_upload"))
    # The very same bytes within one second are the same version to a store that has no finer dates.
    assert opened == 2 or (meanwhile == "the same bytes again" and store.name == "s3")
    (completed,) = recorded.named("complete_upload")
    assert completed.args[1] == saved(checkpoint).upload_id
    left = {entry.upload_id for entry in store.list_uploads() if entry.key == key}
    assert left == {upload.upload_id for upload in checkpoint.abandoned}  # for the ledger to abort


@pytest.mark.parametrize("store", ["memory", "local"], indirect=True)
@pytest.mark.parametrize("verb", ["put", "complete_upload", "copy"])
def test_a_zombie_does_not_bring_back_a_deleted_blob(store: Store, verb: str, key: str, engine: Engine) -> None:
    """The successor committed, and somebody has deleted that since."""
    store.put(key, OLD)
    zombie = beside(store, verb, lambda: store.delete_batch([key]))
    with pytest.raises(SupersededError):
        run(engine, zombie, key, verb, MemoryCheckpoint("job"))
    assert blob(store, key) is None


# --- uploads that vanish, by a lifecycle rule or by somebody's hand --------------------------------------------------

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
        scene.run(beside(scene.memory, "complete_upload", die))
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
        bench.write(OURS, beside(bench.memory, "complete_upload", die))
    upload = saved(bench.checkpoint)
    bench.checkpoint.upload = replace(upload, opened_at=upload.opened_at - age)
    bench.abort_all()

    store = RuledStore(bench.memory, lifetime)
    with nullcontext() if is_explained else pytest.raises(OutcomeUnknownError):
        bench.write(OURS, store)
    assert bench.blob == (OURS if is_explained else None)
