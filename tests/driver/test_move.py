"""move: the blob is at the other path, whole and with all that it carried, before exactly its old key is deleted.

Every case runs below and above the threshold from which a blob is copied in parts.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import PUBLISHING, FaultyStore, RecordingStore, WrappedStore
from tests.driver.blobs_and_readers import MakeDriver, content, data, identity, keys, put, stored
from tests.driver.store_kinds import COPYING, LIMITS, MIN, PART, cases
from tests.faults import refusing
from worker.driver import Driver
from worker.errors import BlobExistsError, BlobferryError, PathNotFoundError, PermissionDeniedError
from worker.stores.blob_values import BlobOptions, Limits
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine

pytestmark = pytest.mark.no_cover

P = PART
THRESHOLD = COPYING.threshold
SMALL, LARGE = 100, 2 * THRESHOLD + 13
small_and_large = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["one copy", "copied in parts"])
large_and_small = cases("size", {"copied in parts": LARGE}, {"one copy": SMALL})
"""Where the same must hold, but a server need not show it twice."""


@pytest.fixture
def other(on: MakeDriver, root: str) -> Driver:
    """Another storage."""
    return on(MemoryStore(limits=LIMITS), f"{root}-other")


@pytest.fixture(params=["here", "elsewhere"])
def dest(request: pytest.FixtureRequest, driver: Driver, other: Driver) -> Driver:
    """The storage that a blob is moved to."""
    return driver if request.param == "here" else other


@cases("size", [0, THRESHOLD, THRESHOLD + 1], [1, 32, MIN, 2 * THRESHOLD + 13])
@pytest.mark.every_run_on("local", "moto", "swift")
def test_a_blob_of_any_size_is_moved(driver: Driver, dest: Driver, size: int) -> None:
    put(driver, "/a/b", data(size))
    put(driver, "/a/b/x", b"stays")
    answer: object = driver.move("/a/b", "/c/d", dest=dest)  # type: ignore[func-returns-value]
    child, moved = {"a/b/x": b"stays"}, {"c/d": data(size)}
    assert (answer, list(dest.store.list_uploads())) == (None, [])
    assert (stored(driver), stored(dest)) == ((child | moved,) * 2 if dest is driver else (child, moved))


@cases("size", [SMALL, LARGE], [0])
def test_a_move_replaces_what_is_there(driver: Driver, size: int) -> None:
    put(driver, "/a", data(size, seed=1))
    put(driver, "/b", data(3 * P, seed=2))
    driver.move("/a", "/b")
    assert stored(driver) == {"b": data(size, seed=1)}


@pytest.mark.parametrize("size", [P + 1, 5 * P + 1])  # below the threshold as well, its ETag is no MD5
def test_a_blob_that_was_written_in_parts_is_moved(driver: Driver, size: int) -> None:
    driver.put_content("/a", data(size))
    driver.move("/a", "/b")
    driver.move("/b", "/c")
    assert stored(driver) == {"c": data(size)}


# --- what must survive ---------------------------------------------------------------------------------------------


@small_and_large
def test_siblings_and_children_of_source_and_destination_survive(driver: Driver, size: int) -> None:
    put(driver, "/mv/s", data(size))
    others = ("mv/d-1", "mv/d/x", "mv/d2", "mv/s-1", "mv/s.1", "mv/s/x", "mv/s/y/z", "mv/s2")
    for key in others:
        put(driver, f"/{key}", b"stays")
    driver.move("/mv/s", "/mv/d")
    assert stored(driver) == {"mv/d": data(size), **dict.fromkeys(others, b"stays")}
    assert driver.stat("/mv/s").is_dir


@cases("size", [0, THRESHOLD, THRESHOLD + 1], [1, 32, MIN, 2 * THRESHOLD + 13])
@pytest.mark.every_run_on("swift")
def test_a_blob_that_is_moved_onto_itself_is_kept(driver: Driver, size: int) -> None:
    put(driver, "/a", data(size), BlobOptions(content_type="text/css", metadata={"a": "1"}))
    driver.move("/a", "/a")
    head = driver.store.head(driver.key("/a"))
    assert content(driver, "/a") == data(size)
    assert (head.content_type, head.metadata) == ("text/css", {"a": "1"})


def test_a_missing_blob_cannot_be_moved_onto_itself(driver: Driver) -> None:
    with pytest.raises(PathNotFoundError):
        driver.move("/a", "/a")


@large_and_small
def test_onto_itself_without_overwrite_loses_nothing(driver: Driver, size: int) -> None:
    put(driver, "/a", data(size))
    with suppress(BlobExistsError):  # it is there, after all
        driver.move("/a", "/a", overwrite=False)
    assert content(driver, "/a") == data(size)


NESTED = [("/a", "/a/b"), ("/a/b", "/a")]


@cases("size, source, target", [(LARGE, *paths) for paths in NESTED], [(SMALL, *paths) for paths in NESTED])
def test_a_blob_is_moved_below_or_above_its_own_path(driver: Driver, size: int, source: str, target: str) -> None:
    put(driver, source, data(size))
    put(driver, "/a/c", b"stays")
    driver.move(source, target)
    assert stored(driver) == {target[1:]: data(size), "a/c": b"stays"}


@pytest.mark.every_run_on("moto", "swift")
def test_a_missing_source_is_path_not_found_and_the_destination_stays(driver: Driver, dest: Driver) -> None:
    put(dest, "/b", b"there")
    before = identity(dest, "/b")
    with pytest.raises(PathNotFoundError) as caught:
        driver.move("/a", "/b", dest=dest)
    assert (caught.value.path, caught.value.driver) == ("/a", driver.store.name)
    assert identity(dest, "/b") == before


@pytest.mark.parametrize("path", ["/d", "/m"], ids=["with a blob", "with a marker"])
def test_a_directory_cannot_be_moved_and_stays(driver: Driver, path: str) -> None:
    put(driver, "/d/a", b"x")
    driver.store.put(driver.key("/m") + "/", b"")
    with pytest.raises(PathNotFoundError) as caught:
        driver.move(path, "/e")
    assert (caught.value.path, keys(driver)) == (path, ["d/a", "m/"])


@cases("size", [SMALL, LARGE], [0])
@pytest.mark.every_run_on("local", "moto", only="here")
def test_without_overwrite_a_destination_that_is_there_stays_and_so_does_the_source(
    driver: Driver, dest: Driver, size: int
) -> None:
    put(driver, "/a", data(size))
    put(dest, "/b", b"there")
    before = identity(driver, "/a"), identity(dest, "/b")
    with pytest.raises(BlobExistsError):
        driver.move("/a", "/b", dest=dest, overwrite=False)
    assert (identity(driver, "/a"), identity(dest, "/b")) == before


@cases("size", [SMALL, LARGE], [0])
def test_without_overwrite_a_blob_is_moved_to_where_nothing_is(driver: Driver, size: int) -> None:
    put(driver, "/a", data(size))
    driver.move("/a", "/b", overwrite=False)
    assert stored(driver) == {"b": data(size)}


@small_and_large
@pytest.mark.every_run_on("moto", "swift")
def test_without_overwrite_a_destination_that_appears_at_the_last_moment_stays(
    driver: Driver, met_at: MakeDriver, size: int
) -> None:
    put(driver, "/a", data(size))
    with pytest.raises(BlobExistsError):
        met_at(PUBLISHING, lambda: put(driver, "/b", b"theirs")).move("/a", "/b", overwrite=False)
    assert stored(driver) == {"a": data(size), "b": b"theirs"}


# --- what comes along ----------------------------------------------------------------------------------------------

OPTIONS = BlobOptions(
    content_type="video/mp4",
    metadata={"a": "1", "some-name": "two words"},
    headers={
        "Cache-Control": "no-store",
        "Content-Disposition": 'attachment; filename="grün 漢.pdf"',
        "Content-Language": "de",
        "Expires": "Thu, 01 Jan 2032 00:00:00 GMT",
    },
)


@cases("size", [SMALL, LARGE], [0, P + 1])
@pytest.mark.every_run_on("local", "moto", "swift")
def test_content_type_metadata_and_headers_come_along_and_nothing_is_added(
    driver: Driver, dest: Driver, size: int
) -> None:
    put(driver, "/a", data(size), OPTIONS)
    before = driver.store.options_of(driver.key("/a"))
    driver.move("/a", "/b", dest=dest)
    found = dest.store.options_of(dest.key("/b"))
    assert (found.content_type, found.metadata, found.headers) == ("video/mp4", OPTIONS.metadata, before.headers)


@cases("size", [SMALL, LARGE], [0])
def test_tags_and_the_storage_class_come_along(driver: Driver, size: int) -> None:
    tags = {"team": "a + b", "sum": "1=1"}
    put(driver, "/a", data(size), BlobOptions(tags=tags, storage_class="STANDARD_IA"))
    driver.move("/a", "/b")
    key = driver.key("/b")
    assert (driver.store.options_of(key).tags, driver.store.head(key).storage_class) == (tags, "STANDARD_IA")


@large_and_small
def test_what_the_replaced_blob_carried_does_not_stay(driver: Driver, size: int) -> None:
    put(driver, "/a", data(size), BlobOptions(metadata={"a": "1"}))
    put(driver, "/b", data(size, seed=2), OPTIONS)
    driver.move("/a", "/b")
    found = driver.store.options_of(driver.key("/b"))
    assert (found.metadata, found.headers) == ({"a": "1"}, {})


# --- how -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(driver: Driver, recorded: RecordingStore, on: MakeDriver, size: int) -> RecordingStore:
    """What a move of a blob of the size asked of its store."""
    put(driver, "/a", data(size))
    on(recorded).move("/a", "/b")
    return recorded


@cases("size", [LARGE], [THRESHOLD + 1])
@pytest.mark.every_run_on("moto", "swift")
def test_above_the_threshold_ranges_are_copied_and_no_byte_is_fetched(moved: RecordingStore, size: int) -> None:
    lengths = [call.args[5] for call in moved.named("copy_part")]
    assert sum(lengths) == size
    assert len(lengths) > 1
    assert moved.named("get", "upload_part", "put") == []


@pytest.mark.parametrize("size", [THRESHOLD])
def test_up_to_the_threshold_one_call_copies(moved: RecordingStore) -> None:
    assert moved.named("copy")  # more than one where a store knows no such condition
    assert moved.named("get", "upload_part", "put", "create_upload") == []


@large_and_small
def test_every_copy_is_pinned_to_the_version_that_was_looked_at(
    driver: Driver, recorded: RecordingStore, on: MakeDriver, size: int
) -> None:
    put(driver, "/a", data(size))
    etag = driver.store.head(driver.key("/a")).etag
    on(recorded).move("/a", "/b")
    assert {call.keywords.get("source_if_match") for call in recorded.named("copy", "copy_part")} == {etag}


@large_and_small
def test_the_source_is_deleted_only_after_the_destination_was_looked_at(moved: RecordingStore, driver: Driver) -> None:
    calls = [(call.verb, call.args[0]) for call in moved.calls]
    verbs = [verb for verb, _ in calls]
    deleted = verbs.index("delete_batch")
    published = max(index for index, verb in enumerate(verbs) if verb in ("copy", "complete_upload"))
    assert ("head", driver.key("/b")) in calls[published:deleted]
    assert (calls[deleted][1], verbs.count("delete_batch")) == ([driver.key("/a")], 1)


@pytest.fixture
def strict(engine: Engine) -> Driver:
    """A store in which one copy, and one part, holds at most 2 P."""
    limits = replace(LIMITS, max_part_size=2 * P)
    return Driver(MemoryStore(limits=limits), engine=engine, copying=replace(COPYING, threshold=10**9))


@pytest.mark.parametrize("size", [2 * P, 2 * P + 1, 7 * P + 1])
def test_a_blob_larger_than_one_copy_may_be_is_moved_whatever_the_threshold(strict: Driver, size: int) -> None:
    upload_id = strict.store.create_upload("a")
    parts = [
        strict.store.upload_part("a", upload_id, number, data(size)[start : start + P])
        for number, start in enumerate(range(0, size, P), 1)
    ]
    strict.store.complete_upload("a", upload_id, parts)
    strict.move("/a", "/b")
    assert stored(strict) == {"b": data(size)}


def test_no_more_parts_are_copied_than_a_blob_can_have(engine: Engine) -> None:
    store = MemoryStore(limits=Limits(min_part_size=1, max_parts=7))
    driver = Driver(store, engine=engine, copying=replace(COPYING, threshold=10, part_size=10))
    put(driver, "/a", data(1_000))
    driver.move("/a", "/b")
    assert content(driver, "/b") == data(1_000)


# --- what goes wrong -----------------------------------------------------------------------------------------------

REFUSED = {
    "the copy": ("copy", SMALL),
    "opening the upload": ("create_upload", LARGE),
    "a copied part": ("copy_part", LARGE),
    "completion": ("complete_upload", LARGE),
}


@cases(
    "verb, size, there",
    {name: (*case, True) for name, case in REFUSED.items()},
    {f"{name}, to nothing": (*case, False) for name, case in REFUSED.items()},
)
def test_a_copy_that_is_refused_leaves_source_and_destination_as_they_were(
    driver: Driver, refused_at: MakeDriver, verb: str, size: int, there: bool
) -> None:
    put(driver, "/a", data(size))
    if there:
        put(driver, "/b", b"there")
    before = identity(driver, "/a"), identity(driver, "/b")
    with pytest.raises(PermissionDeniedError):
        refused_at(verb).move("/a", "/b")
    assert (identity(driver, "/a"), identity(driver, "/b")) == before


def test_the_second_copied_part_may_fail_as_well_as_the_first(driver: Driver, refused_at: MakeDriver) -> None:
    put(driver, "/a", data(LARGE))
    with pytest.raises(PermissionDeniedError):
        refused_at("copy_part", fail_at=3).move("/a", "/b")
    assert keys(driver) == ["a"]


@large_and_small
def test_a_source_that_cannot_be_deleted_is_an_error_and_both_blobs_are_there(
    driver: Driver, refused_at: MakeDriver, size: int
) -> None:
    put(driver, "/a", data(size))
    with pytest.raises(PermissionDeniedError):
        refused_at("delete_batch").move("/a", "/b")
    assert stored(driver) == {"a": data(size), "b": data(size)}
    driver.move("/a", "/b")  # and it may be tried again
    assert keys(driver) == ["b"]


class ShortSighted(WrappedStore):
    """Shows the blob under one key one byte too small: it is not the one that was copied."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__(store)
        self._key = key

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        answer = super()._do(name, args, keywords)
        return replace(answer, size=answer.size - 1) if (name, args[:1]) == ("head", (self._key,)) else answer


@large_and_small
def test_the_source_stays_if_the_destination_does_not_show_what_was_copied(
    driver: Driver, on: MakeDriver, size: int
) -> None:
    put(driver, "/a", data(size))
    with pytest.raises(BlobferryError):
        on(ShortSighted(driver.store, driver.key("/b"))).move("/a", "/b")
    assert content(driver, "/a") == data(size)


ReplaceSource = Callable[..., bytes | None]


@pytest.fixture
def replace_source(driver: Driver, met_at: MakeDriver) -> ReplaceSource:
    """Moves while somebody replaces the source before the verb: an error, theirs stays. What is at the destination."""

    def move(size: int, verb: str, *, at: int = 1, dest: Driver | None = None) -> bytes | None:
        put(driver, "/a", data(size, seed=1))
        put(driver, "/b", b"there")
        with pytest.raises(BlobferryError):
            met_at(verb, lambda: put(driver, "/a", data(size, seed=9)), at=at).move("/a", "/b", dest=dest)
        assert content(driver, "/a") == data(size, seed=9)
        return content(driver, "/b")

    return move


def test_a_source_replaced_before_the_copy_is_an_error_and_both_stay(replace_source: ReplaceSource) -> None:
    assert replace_source(SMALL, "copy") == b"there"


@cases("at", [3], [1])
@pytest.mark.every_run_on("local", "moto", "swift")
def test_a_source_replaced_between_copied_ranges_is_an_error_and_both_stay(
    replace_source: ReplaceSource, at: int
) -> None:
    assert replace_source(LARGE, "copy_part", at=at) == b"there"


# Not Swift, which compares with an ETag that it does not show, as is known from the first refusal on.
@pytest.mark.parametrize("kind", ["memory", "local", "moto"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["one copy", "copied in parts"])
def test_a_source_replaced_before_its_delete_is_an_error_and_stays(replace_source: ReplaceSource, size: int) -> None:
    assert replace_source(size, "delete_batch") == data(size, seed=1)


@cases("size, verb", [(SMALL, "copy"), (LARGE, "copy_part")], [(LARGE, "complete_upload")])
@pytest.mark.every_run_on("local")
def test_a_source_that_is_replaced_during_a_move_is_never_lost(
    replace_source: ReplaceSource, size: int, verb: str
) -> None:
    replace_source(size, verb)


@large_and_small
def test_a_source_replaced_on_its_way_to_another_storage_is_an_error_and_stays(
    replace_source: ReplaceSource, other: Driver, size: int
) -> None:
    replace_source(size, "delete_batch", dest=other)


@cases("verb, size", [("complete_upload", LARGE)], [("copy", SMALL), ("delete_batch", SMALL)])
@pytest.mark.every_run_on("moto", "swift")
def test_an_answer_that_was_lost_does_not_fail_a_move(driver: Driver, on: MakeDriver, verb: str, size: int) -> None:
    put(driver, "/a", data(size))
    lost = FaultyStore(driver.store, verb, when="after")
    try:
        on(lost).move("/a", "/b")
    except BlobferryError:
        assert verb == "delete_batch"  # the error may be told, but nothing may be lost
    assert (lost.fired, stored(driver)) == (1, {"b": data(size)})


# --- between drivers -----------------------------------------------------------------------------------------------


def test_a_blob_comes_from_another_storage(driver: Driver, other: Driver) -> None:
    put(other, "/a", data(3 * P), OPTIONS)
    other.move("/a", "/b", dest=driver)
    assert driver.store.options_of(driver.key("/b")).content_type == "video/mp4"
    assert (stored(driver), stored(other)) == ({"b": data(3 * P)}, {})


@cases("size", [3 * P + 7], [SMALL])
def test_another_storage_that_refuses_leaves_the_source(
    driver: Driver, on: MakeDriver, other: Driver, size: int
) -> None:
    put(driver, "/a", data(size))
    with pytest.raises(PermissionDeniedError):
        driver.move("/a", "/b", dest=on(refusing(other.store, "put", "complete_upload")))
    assert content(driver, "/a") == data(size)
    assert list(other.store.list_uploads()) == []


@large_and_small
def test_a_blob_moves_to_another_root_directory_of_the_same_bucket(
    driver: Driver, on: MakeDriver, root: str, size: int
) -> None:
    put(driver, "/a", data(size), OPTIONS)
    driver.move("/a", "/a", dest=on(driver.store, f"{root}/elsewhere"))
    assert stored(driver) == {"elsewhere/a": data(size)}


@large_and_small
@pytest.mark.every_run_on("local", "moto", "swift")
def test_one_object_seen_through_two_drivers_is_kept(driver: Driver, on: MakeDriver, root: str, size: int) -> None:
    deeper = on(driver.store, f"{root}/deeper")
    put(deeper, "/a", data(size))
    driver.move("/deeper/a", "/a", dest=deeper)
    deeper.move("/a", "/deeper/a", dest=driver)
    driver.move("/deeper/a", "/deeper/a", dest=driver)
    assert stored(driver) == {"deeper/a": data(size)}


SameBucket = Callable[..., Store]


@pytest.fixture
def same_bucket(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> SameBucket:
    """Another store of the same bucket, with ``renamed`` under another name: a symbolic link, or another host name."""

    def make(*, renamed: bool = False) -> Store:
        if store.name == "local":
            link = tmp_path / "other"
            link.symlink_to(store.bucket)
            return LocalStore(link if renamed else Path(store.bucket), limits=LIMITS)
        service = request.getfixturevalue("service")
        endpoint = service.endpoint.replace("127.0.0.1", "localhost") if renamed else service.endpoint
        made: Store = request.getfixturevalue("make_s3_store")(replace(service, endpoint=endpoint))
        return made

    return make


in_buckets = pytest.mark.parametrize("kind", ["local", "moto", "swift"])


@in_buckets
@small_and_large
@pytest.mark.every_run_on("local", "moto")
def test_one_object_seen_through_two_stores_of_one_bucket_is_kept(
    driver: Driver, same_bucket: SameBucket, on: MakeDriver, root: str, size: int
) -> None:
    deeper = on(same_bucket(), f"{root}/deeper")
    put(deeper, "/a", data(size))
    driver.move("/deeper/a", "/a", dest=deeper)
    assert content(deeper, "/a") == data(size)


@in_buckets
@small_and_large
@pytest.mark.every_run_on("local", "moto")
def test_one_object_in_a_bucket_with_two_names_is_never_lost(
    driver: Driver, same_bucket: SameBucket, on: MakeDriver, size: int
) -> None:
    put(driver, "/a", data(size))
    with suppress(BlobferryError):  # nobody can know it beforehand
        driver.move("/a", "/a", dest=on(same_bucket(renamed=True)))
    assert content(driver, "/a") == data(size)


def test_a_bad_destination_in_another_storage_is_refused_by_its_name(driver: Driver, other: Driver) -> None:
    put(driver, "/a", b"x")
    with pytest.raises(BlobferryError, match="bad"):
        driver.move("/a", "bad", dest=other)
    assert keys(driver) == ["a"]


def test_directories_of_one_name_elsewhere_are_not_touched(driver: Driver, other: Driver) -> None:
    put(driver, "/a", b"x")
    put(other, "/a/y", b"y")
    driver.move("/a", "/a", dest=other)
    assert keys(other) == ["a", "a/y"]
