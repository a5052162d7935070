"""Targets: what the conditions of a commit call protect."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.services import create_bucket, moto
from tests.doubles import TINY, BytesSource, HookedStore, RecordingStore, blob, tiny_store, write
from tests.transfer.bench import at, saved
from worker.driver.delete_moved import delete_unchanged
from worker.errors import (
    SourceChangedError,
    SupersededError,
)
from worker.stores.blob_values import BlobHead, BlobOptions
from worker.stores.local import LocalStore
from worker.stores.s3.s3_store import S3Access, S3Store
from worker.stores.store import Store
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.sources.blob_source import version_of
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
