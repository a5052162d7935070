"""A blob as a file: one version of it, over as many connections as it takes. The driver's suite has all the stores."""

import gc
import io
import shutil
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.doubles import FaultyStore, RecordingStore, WrappedStore, tiny_store
from tests.driver.blobs_and_readers import DroppingStore, data
from tests.faults import refusing
from worker.driver.blob_reader import open_reader
from worker.errors import (
    CredentialsError,
    KeyNotFoundError,
    PermissionDeniedError,
    SourceChangedError,
    StoreUnavailableError,
)
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store

DATA = data(10_000)
NEWER = data(10_000, seed=2)


class VagueStore(WrappedStore):
    """Gives no ETags, or ignores If-Match."""

    def __init__(self, store: Store, *, gives_etags: bool = True, knows_if_match: bool = True) -> None:
        super().__init__(store)
        self._gives_etags = gives_etags
        self._knows_if_match = knows_if_match

    def get(self, *args: Any, **keywords: Any) -> Any:
        reader = self._do("get", args, keywords if self._knows_if_match else {}).__enter__()
        reader.etag = reader.etag if self._gives_etags else ""
        return closing(reader)


@pytest.fixture
def store() -> MemoryStore:
    store = tiny_store()
    store.put("a", DATA)
    return store


@pytest.mark.parametrize("offset", [0, 1, 9_999, 10_000, 10**12])
def test_a_stream_costs_one_request(store: MemoryStore, offset: int) -> None:
    recording = RecordingStore(store)
    with open_reader(recording, "a", offset, "/a") as stream:
        assert stream.read() == DATA[offset:]
    assert [call.verb for call in recording.calls] == ["get"]


@pytest.mark.parametrize("offset", [0, 10**12])
def test_a_missing_key_fails_at_the_call_and_leaves_nothing_behind(store: MemoryStore, offset: int) -> None:
    with pytest.raises(KeyNotFoundError):
        open_reader(store, "b", offset, "/b")


def test_a_stream_is_copied_like_a_file(store: MemoryStore) -> None:
    target = io.BytesIO()
    with open_reader(DroppingStore(store, 3_000, 1), "a", 10, "/a") as stream:
        shutil.copyfileobj(stream, target)
    assert target.getvalue() == DATA[10:]


def test_a_stream_that_is_closed_gives_its_connection_back(store: MemoryStore) -> None:
    connections = DroppingStore(store)
    with open_reader(connections, "a", 0, "/a") as stream:
        assert (stream.read(1), connections.open_connections()) == (DATA[:1], 1)
    assert connections.open_connections() == 0


def test_a_stream_that_is_forgotten_gives_its_connection_back(store: MemoryStore) -> None:
    connections = DroppingStore(store)
    assert open_reader(connections, "a", 0, "/a").read(1) == DATA[:1]
    gc.collect()
    assert connections.open_connections() == 0


def test_a_connection_that_drops_is_given_back_and_the_next_begins_where_it_was(store: MemoryStore) -> None:
    connections = DroppingStore(store, 3_000, 0, 2_000)
    with open_reader(connections, "a", 500, "/a") as stream:
        assert stream.read() == DATA[500:]
        assert connections.open_connections() == 1
    assert connections.offsets == [500, 3_500, 3_500, 5_500]


def test_any_number_of_drops_is_put_up_with_while_bytes_come(store: MemoryStore) -> None:
    with open_reader(DroppingStore(store, *[700] * 12), "a", 0, "/a") as stream:
        assert stream.read() == DATA


@pytest.mark.parametrize("error", [CredentialsError, StoreUnavailableError])
def test_an_error_that_passes_when_the_connection_is_made_anew_is_waited_out(
    store: MemoryStore, error: type[Exception]
) -> None:
    faulty = FaultyStore(DroppingStore(store, 3_000), "get", fail_at=2, error=lambda: error("for a moment"))
    with open_reader(faulty, "a", 0, "/a") as stream:
        assert stream.read() == DATA
    assert faulty.fired == 1


def test_a_refusal_when_the_connection_is_made_anew_is_raised_at_once(store: MemoryStore) -> None:
    faulty = refusing(DroppingStore(store, 3_000), "get", fail_at=2)
    with open_reader(faulty, "a", 0, "/a") as stream, pytest.raises(PermissionDeniedError):
        stream.read()
    assert faulty.fired == 1


def test_a_store_that_stays_away_is_given_a_few_tries(store: MemoryStore) -> None:
    connections = DroppingStore(store, *[0] * 100)
    with open_reader(connections, "a", 0, "/a") as stream, pytest.raises(StoreUnavailableError):
        stream.read()
    assert 2 <= len(connections.offsets) <= 10
    assert connections.open_connections() == 0


def test_reading_on_after_an_error_raises_it_again_and_skips_nothing(store: MemoryStore) -> None:
    large = data(3_000_000)
    store.put("a", large)
    # The first half of what is asked for arrives, and goes down with the error: the next read must not begin behind it.
    connections = DroppingStore(store, 1_500_000, *[0] * 5)
    with open_reader(connections, "a", 0, "/a") as stream:
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                stream.read(2_000_000)


# --- one version -----------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Store], object]] = {
    "replaced": lambda store: store.put("a", NEWER),
    "replaced by a shorter one": lambda store: store.put("a", b"short"),
    "replaced by an empty one": lambda store: store.put("a", b""),
    "deleted": lambda store: store.delete_batch(["a"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("size", [0, 3_000])
def test_a_blob_that_changed_while_the_connection_was_down_is_a_changed_source(
    store: MemoryStore, change: Callable[[Store], object], size: int
) -> None:
    connections = DroppingStore(store, size, dropped=lambda: change(store))
    with open_reader(connections, "a", 0, "/a") as stream, pytest.raises(SourceChangedError, match="/a"):
        stream.read()
    assert connections.open_connections() == 0


@pytest.mark.parametrize(
    ("lacks", "error"), [("knows_if_match", SourceChangedError), ("gives_etags", StoreUnavailableError)]
)
def test_a_store_that_ignores_if_match_or_gives_no_etag_mixes_no_versions(
    store: MemoryStore, lacks: str, error: type[Exception]
) -> None:
    vague = VagueStore(store, **{lacks: False})
    connections = DroppingStore(vague, 3_000, dropped=lambda: store.put("a", NEWER))
    with open_reader(connections, "a", 0, "/a") as stream, pytest.raises(error):
        stream.read()
    assert connections.open_connections() == 0


def test_a_blob_that_was_replaced_by_its_equal_goes_on(store: MemoryStore) -> None:
    """The same bytes under the same ETag: nobody can tell, and nobody needs to."""
    with open_reader(DroppingStore(store, 3_000, dropped=lambda: store.put("a", DATA)), "a", 0, "/a") as stream:
        assert stream.read() == DATA
