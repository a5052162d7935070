"""A run that slept through the loss of its lease, and wakes right at a call that readers would see.

Nothing can keep a suspended process from sending it: the store itself must refuse, by the condition that it carries.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.services import create_bucket, moto
from tests.doubles import BytesSource, HookedStore, RecordingStore, blob, write
from worker.driver.delete_moved import delete_unchanged
from worker.errors import BlobferryError, SourceChangedError, SupersededError
from worker.stores.blob_values import BlobOptions, Limits
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.s3.s3_store import S3Access, S3Store
from worker.stores.store import Store
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.sources.blob_source import version_of
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import CopiedPrefix, Copying

TINY = Limits(min_part_size=1)
OLD, NEWER, OURS = b"what was there", b"what somebody wrote meanwhile", bytes(range(95))
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    with moto(min_part_size=1) as service:
        create_bucket(service, "fencing")
        access = S3Access(
            region=service.region,
            endpoint=service.endpoint,
            access_key=service.access_key,
            secret_key=service.secret_key,
            path_style=True,
        )
        yield S3Store(access, "fencing", limits=TINY)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "memory":
            return MemoryStore(limits=TINY)
        case "local":
            return LocalStore(tmp_path / "bucket", limits=TINY)
    found: Store = request.getfixturevalue("s3")
    return found


@pytest.fixture
def key() -> str:
    return f"videos/{next(_numbers)}.mp4"


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(part_size=10, part_threads=2)
    yield engine
    engine.close()


def run(engine: Engine, store: Store, key: str, verb: str, checkpoint: MemoryCheckpoint) -> None:
    """One run of a job that publishes by this verb."""
    match verb:
        case "put":
            write(engine, store, key, BytesSource(OURS[:10]), checkpoint=checkpoint)
        case "complete_upload":
            write(engine, store, key, BytesSource(OURS), checkpoint=checkpoint)
        case _:
            store.put(f"{key}.source", OURS)
            head = CopiedPrefix.of(store.head(f"{key}.source"))
            copying = Copying(threshold=1000)
            write(engine, store, key, BytesSource(OURS), checkpoint=checkpoint, head=head, copying=copying)


def once(verb: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Do something right before the first call of the verb."""
    done: list[str] = []

    def before(name: str) -> None:
        if name == verb and not done:
            done.append(name)
            act()

    return before


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
def test_a_zombie_publishes_nothing_over_a_newer_blob(
    store: Store, verb: str, base: bytes | None, key: str, engine: Engine
) -> None:
    if base is not None:
        store.put(key, base)
    zombie = HookedStore(store, before=once(verb, lambda: store.put(key, NEWER)))
    with pytest.raises(SupersededError):
        run(engine, zombie, key, verb, MemoryCheckpoint("job"))
    assert blob(store, key) == NEWER


@cases
def test_a_zombie_does_not_publish_again_what_its_successor_has_published(
    store: Store, verb: str, base: bytes | None, key: str, engine: Engine
) -> None:
    """The successor's blob is the job's own, so that all is well; it is not replaced all the same."""
    if base is not None:
        store.put(key, base)
    published: list[object] = []

    def succeed() -> None:
        run(engine, store, key, verb, MemoryCheckpoint("job"))
        head = store.head(key)
        published.append((head.etag, head.mod_time, head.version_id))

    checkpoint = MemoryCheckpoint("job")
    run(engine, HookedStore(store, before=once(verb, succeed)), key, verb, checkpoint)
    head = store.head(key)
    assert [(head.etag, head.mod_time, head.version_id)] == published


@pytest.mark.parametrize("store", ["memory", "local", "s3"], indirect=True)
def test_a_zombie_deletes_no_newer_source(store: Store, key: str) -> None:
    store.put(key, OLD)
    version = version_of(store.head(key))
    zombie = HookedStore(store, before=once("delete_batch", lambda: store.put(key, NEWER)))
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

    recorded = RecordingStore(store)
    checkpoint = MemoryCheckpoint("job")
    write(
        engine, HookedStore(recorded, before=once("upload_part", change)), key, BytesSource(OURS), checkpoint=checkpoint
    )
    assert blob(store, key) == OURS
    opened = len(recorded.named("create_upload"))
    # The very same bytes within one second are the same version to a store that has no finer dates.
    assert opened == 2 or (meanwhile == "the same bytes again" and store.name == "s3")
    (completed,) = recorded.named("complete_upload")
    assert checkpoint.upload is not None
    assert completed.args[1] == checkpoint.upload.upload_id
    left = {entry.upload_id for entry in store.list_uploads() if entry.key == key}
    assert left == {upload.upload_id for upload in checkpoint.abandoned}  # for the ledger to abort


@pytest.mark.parametrize("store", ["memory", "local"], indirect=True)
@pytest.mark.parametrize("verb", ["put", "complete_upload", "copy"])
def test_an_upload_or_a_call_of_a_zombie_leaves_the_newer_blob_also_when_it_was_deleted(
    store: Store, verb: str, key: str, engine: Engine
) -> None:
    """The successor published, and somebody has deleted that since: it must not come back."""
    store.put(key, OLD)
    zombie = HookedStore(store, before=once(verb, lambda: store.delete_batch([key])))
    with pytest.raises(BlobferryError) as caught:
        run(engine, zombie, key, verb, MemoryCheckpoint("job"))
    assert isinstance(caught.value, SupersededError)
    assert blob(store, key) is None
