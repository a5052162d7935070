"""A blob as a file: one version of it, over as many connections as it takes. The driver's suite has all the stores."""

import gc
import io
import shutil
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.doubles import FaultyStore, RecordingStore, WrappedStore, tiny_store
from tests.driver.blobs_and_readers import DroppingReader, data
from worker.driver.blob_reader import open_reader
from worker.errors import (
    CredentialsError,
    KeyNotFoundError,
    PermissionDeniedError,
    SourceChangedError,
    StoreUnavailableError,
)
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Reader, Store

DATA = data(10_000)
Later = Callable[[], object]


class TrackedReader:
    """A reader that tells whether it is still open."""

    def __init__(self, reader: Reader, opened: list["TrackedReader"]) -> None:
        self.etag = reader.etag
        self.is_open = True
        self._reader = reader
        opened.append(self)

    def read(self, size: int = -1, /) -> bytes:
        return self._reader.read(size)

    def close(self) -> None:
        self.is_open = False
        self._reader.close()


class ConnectionStore(WrappedStore):
    """Each connection of ``sizes`` breaks off after so many bytes, and ``dropped`` happens; the others do not."""

    def __init__(
        self,
        store: Store,
        *sizes: int,
        dropped: Later = lambda: None,
        gives_etags: bool = True,
        knows_if_match: bool = True,
    ) -> None:
        super().__init__(store)
        self.opened: list[TrackedReader] = []
        self.offsets: list[int] = []
        self._sizes = list(sizes)
        self._dropped = dropped
        self._gives_etags = gives_etags
        self._knows_if_match = knows_if_match

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name != "get":
            return super()._do(name, args, keywords)
        answer = super()._do(name, args, keywords if self._knows_if_match else {})
        reader: Reader = answer.__enter__()
        if not self._gives_etags:
            reader.etag = ""
        if self._sizes:
            reader = DroppingReader(reader, self._sizes.pop(0), self._dropped)
        self.offsets.append(args[1])
        return closing(TrackedReader(reader, self.opened))

    def still_open(self) -> list[TrackedReader]:
        """The connections that nobody has given back."""
        return [reader for reader in self.opened if reader.is_open]


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
    with open_reader(ConnectionStore(store, 3_000, 1), "a", 10, "/a") as stream:
        shutil.copyfileobj(stream, target)
    assert target.getvalue() == DATA[10:]


def test_a_stream_that_is_closed_gives_its_connection_back(store: MemoryStore) -> None:
    connections = ConnectionStore(store)
    with open_reader(connections, "a", 0, "/a") as stream:
        assert stream.read(1) == DATA[:1]
        assert len(connections.still_open()) == 1
    assert connections.still_open() == []


def test_a_stream_that_is_forgotten_gives_its_connection_back(store: MemoryStore) -> None:
    connections = ConnectionStore(store)
    assert open_reader(connections, "a", 0, "/a").read(1) == DATA[:1]
    gc.collect()
    assert connections.still_open() == []


def test_a_connection_that_drops_is_given_back_and_the_next_begins_where_it_was(store: MemoryStore) -> None:
    connections = ConnectionStore(store, 3_000, 0, 2_000)
    with open_reader(connections, "a", 500, "/a") as stream:
        assert stream.read() == DATA[500:]
        assert len(connections.still_open()) == 1
    assert connections.offsets == [500, 3_500, 3_500, 5_500]


def test_any_number_of_drops_is_put_up_with_while_bytes_come(store: MemoryStore) -> None:
    with open_reader(ConnectionStore(store, *[700] * 12), "a", 0, "/a") as stream:
        assert stream.read() == DATA


@pytest.mark.parametrize("error", [CredentialsError, StoreUnavailableError])
def test_an_error_that_passes_when_the_connection_is_made_anew_is_waited_out(
    store: MemoryStore, error: type[Exception]
) -> None:
    faulty = FaultyStore(ConnectionStore(store, 3_000), "get", fail_at=2, error=lambda: error("for a moment"))
    with open_reader(faulty, "a", 0, "/a") as stream:
        assert stream.read() == DATA
    assert faulty.fired == 1


def test_a_refusal_when_the_connection_is_made_anew_is_raised_at_once(store: MemoryStore) -> None:
    faulty = FaultyStore(
        ConnectionStore(store, 3_000), "get", fail_at=2, times=100, error=lambda: PermissionDeniedError("no")
    )
    with open_reader(faulty, "a", 0, "/a") as stream, pytest.raises(PermissionDeniedError):
        stream.read()
    assert faulty.fired == 1


def test_a_store_that_stays_away_is_given_a_few_tries(store: MemoryStore) -> None:
    connections = ConnectionStore(store, *[0] * 100)
    with open_reader(connections, "a", 0, "/a") as stream, pytest.raises(StoreUnavailableError):
        stream.read()
    assert 2 <= len(connections.offsets) <= 10
    assert connections.still_open() == []


def test_reading_on_after_an_error_raises_it_again_and_skips_nothing(store: MemoryStore) -> None:
    large = data(3_000_000)
    store.put("a", large)
    # The first half of what is asked for arrives, and goes down with the error: the next read must not begin behind it.
    connections = ConnectionStore(store, 1_500_000, *[0] * 5)
    with open_reader(connections, "a", 0, "/a") as stream:
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                stream.read(2_000_000)


# --- one version -----------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Store], object]] = {
    "replaced": lambda store: store.put("a", data(10_000, seed=2)),
    "replaced by a shorter one": lambda store: store.put("a", b"short"),
    "replaced by an empty one": lambda store: store.put("a", b""),
    "deleted": lambda store: store.delete_batch(["a"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("size", [0, 3_000])
def test_a_blob_that_changed_while_the_connection_was_down_is_a_changed_source(
    store: MemoryStore, change: Callable[[Store], object], size: int
) -> None:
    connections = ConnectionStore(store, size, dropped=lambda: change(store))
    with open_reader(connections, "a", 0, "/a") as stream, pytest.raises(SourceChangedError, match="/a"):
        stream.read()
    assert connections.still_open() == []


def test_a_store_that_ignores_if_match_mixes_no_versions(store: MemoryStore) -> None:
    connections = ConnectionStore(
        store, 3_000, dropped=lambda: store.put("a", data(10_000, seed=2)), knows_if_match=False
    )
    with open_reader(connections, "a", 0, "/a") as stream, pytest.raises(SourceChangedError):
        stream.read()
    assert connections.still_open() == []


def test_a_store_that_gives_no_etag_mixes_no_versions(store: MemoryStore) -> None:
    connections = ConnectionStore(store, 3_000, dropped=lambda: store.put("a", data(10_000, seed=2)), gives_etags=False)
    with open_reader(connections, "a", 0, "/a") as stream, pytest.raises(StoreUnavailableError):
        stream.read()


def test_a_blob_that_was_replaced_by_its_equal_goes_on(store: MemoryStore) -> None:
    """The same bytes under the same ETag: nobody can tell, and nobody needs to."""
    with open_reader(ConnectionStore(store, 3_000, dropped=lambda: store.put("a", DATA)), "a", 0, "/a") as stream:
        assert stream.read() == DATA
