"""A process that is killed while it probes a store: what it leaves is removed an hour later, and nothing else."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dev.services import S3Service, create_bucket, moto
from tests.doubles import TINY, DeathError, FaultyStore, Fuse, MortalStore, When, WrappedStore, tiny_store, unfinished
from tests.s3_stores import s3_store
from worker.errors import DeleteIncompleteError, NotSupportedError, PermissionDeniedError, StoreUnavailableError
from worker.stores.blob_values import DeleteFailure
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.left_probes import KEPT, remove_left_probes
from worker.transfer.probe import PROBED, holds
from worker.transfer.probe_keys import new_probe_key, probe_prefix, probed_at

ROOT = "videos"
LATER = KEPT + timedelta(minutes=1)


class LaterStore(WrappedStore):
    """The store as it is some time later, by its own clock."""

    def __init__(self, store: Store, later: timedelta = LATER) -> None:
        super().__init__(store)
        self._later = later

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        answer = super()._do(name, args, keywords)
        return replace(answer, served_at=answer.served_at + self._later) if name == "list_page" else answer


class SweptStore(WrappedStore):
    """Another machine sweeps it right before the ``fail_at``-th call, an hour after the one before that."""

    def __init__(self, store: Store, fail_at: int) -> None:
        super().__init__(store)
        self.calls = 0
        self._fail_at = fail_at

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        self.calls += 1
        if self.calls == self._fail_at:
            remove_left_probes(LaterStore(self.store))
        return super()._do(name, args, keywords)


class StubbornStore(WrappedStore):
    """Deletes nothing, and says so key by key."""

    def delete_batch(self, keys: Any, **keywords: Any) -> list[DeleteFailure]:
        return [DeleteFailure(key, "AccessDenied", "no") for key in keys]


@pytest.fixture(scope="module")
def moto_service() -> Iterator[S3Service]:
    with moto() as service:
        create_bucket(service, "probed")
        yield service


@pytest.fixture(params=["memory", "local", "moto"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "memory":
            store: Store = tiny_store()
        case "local":
            store = LocalStore(tmp_path / "bucket", limits=TINY)
        case _:
            store = s3_store(request.getfixturevalue("moto_service"), "probed", limits=TINY)
    forget(store)
    return store


@pytest.fixture
def memory() -> MemoryStore:
    store = tiny_store()
    forget(store)
    return store


def forget(store: Store) -> None:
    """Know nothing of the store but the root of its storage."""
    store.capabilities = Capabilities()
    store.capabilities.probes_below = ROOT


def keys(store: Store) -> list[str]:
    return [entry.key for entry in store.list_page("").entries]


def die_at_each_call(store: Store, capability: Capability, when: When) -> int:
    """Probe the capability in one process after the other, each of which is killed one call later; how many were."""
    for fail_at in count(1):
        fuse = Fuse(fail_at, when)
        try:
            forget(store)
            holds(MortalStore(store, fuse), capability)
        except DeathError:
            continue
        return fail_at - 1
    raise AssertionError


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("capability", PROBED)
def test_nothing_stays_of_a_probe_whose_process_was_killed(store: Store, capability: Capability, when: When) -> None:
    deaths = die_at_each_call(store, capability, when)
    left = len(keys(store)) + len(unfinished(store))
    assert left > 0
    assert deaths >= 2
    assert remove_left_probes(LaterStore(store)) == left
    assert (keys(store), unfinished(store)) == ([], [])
    assert remove_left_probes(LaterStore(store)) == 0


@pytest.mark.parametrize("capability", PROBED)
def test_a_probe_that_is_swept_because_it_was_suspended_finds_nothing_missing(
    memory: MemoryStore, capability: Capability
) -> None:
    for fail_at in count(1):
        forget(memory)
        store = SweptStore(memory, fail_at)
        with suppress(StoreUnavailableError):  # nothing was decided
            assert holds(store, capability)
        assert memory.capabilities.missing == frozenset()
        if store.calls < fail_at:
            break
    assert fail_at > 2


def test_what_a_probe_that_may_go_on_has_written_stays(store: Store) -> None:
    key = new_probe_key(store)
    store.put(key, b"probe")
    upload_id = store.create_upload(key)
    for later in (timedelta(), KEPT - timedelta(minutes=1)):
        assert remove_left_probes(LaterStore(store, later)) == 0
        assert (keys(store), unfinished(store)) == ([key], [upload_id])
    assert remove_left_probes(LaterStore(store)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "mine",
        "20261130T060700Z",
        "20261130T060700Z-mine",
        "99999999T999999Z-0123456789abcdef0123456789abcdef",
        "deeper/20200101T000000Z-0123456789abcdef0123456789abcdef",
        "20200101T000000Z-0123456789abcdef0123456789abcdef.mine",
    ],
)
def test_a_users_blob_at_that_place_stays(memory: MemoryStore, name: str) -> None:
    key = probe_prefix(memory) + name
    memory.put(key, b"a user's")
    memory.create_upload(key)
    assert remove_left_probes(LaterStore(memory)) == 0
    assert (keys(memory), len(unfinished(memory))) == ([key], 1)


def test_another_storages_probes_are_left_to_its_own_sweep(memory: MemoryStore) -> None:
    key = f"other/{new_probe_key(memory)}"
    memory.put(key, b"probe")
    assert probed_at(memory, key) is None
    assert remove_left_probes(LaterStore(memory)) == 0
    assert keys(memory) == [key]


def test_more_blobs_than_one_request_deletes_are_removed(memory: MemoryStore) -> None:
    memory.limits = replace(memory.limits, max_delete=2)
    for _ in range(5):
        memory.put(new_probe_key(memory), b"probe")
    assert remove_left_probes(LaterStore(memory)) == 5
    assert keys(memory) == []


def test_a_store_that_does_not_list_uploads_is_swept_all_the_same(memory: MemoryStore) -> None:
    memory.put(new_probe_key(memory), b"probe")
    refusing = FaultyStore(memory, "list_uploads", error=lambda: NotSupportedError("no"))
    assert remove_left_probes(LaterStore(refusing)) == 1
    assert (refusing.fired, keys(memory)) == (1, [])


def test_a_blob_that_cannot_be_removed_is_an_error_and_keeps_no_upload(memory: MemoryStore) -> None:
    key = new_probe_key(memory)
    memory.put(key, b"probe")
    memory.create_upload(key)
    with pytest.raises(DeleteIncompleteError, match=key):
        remove_left_probes(LaterStore(StubbornStore(memory)))
    assert unfinished(memory) == []


def test_a_probe_needs_no_permission_to_list(memory: MemoryStore) -> None:
    store = FaultyStore(memory, "list_page", "list_uploads", times=100, error=lambda: PermissionDeniedError("no"))
    for capability in PROBED:
        assert holds(store, capability)
    assert (store.fired, keys(memory)) == (0, [])
