"""Probes: what a store has is found out at a key of our own, once, and nothing of it stays."""

from typing import Any

import pytest

from tests.doubles import FaultyStore, RecordingStore, UnconditionalStore, WrappedStore, tiny_store, unfinished
from worker.driver import Driver
from worker.errors import NotSupportedError, PreconditionFailedError, StoreUnavailableError
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.probe import PROBED, holds
from worker.transfer.probe_keys import new_probe_key

OPTIONS = [Capability.METADATA, Capability.COPY_OPTIONS]
CONDITIONS = [capability for capability in PROBED if capability not in OPTIONS]


class DroppingStore(WrappedStore):
    """Drops the options of everything."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return super()._do(name, args, keywords | {"options": None} if "options" in keywords else keywords)


@pytest.fixture
def memory() -> MemoryStore:
    store = tiny_store()
    store.capabilities = Capabilities()
    return store


def is_clean(memory: MemoryStore) -> bool:
    return not memory.list_page("").entries and not unfinished(memory)


@pytest.mark.parametrize("capability", PROBED)
def test_a_store_that_has_it_is_asked_once(memory: MemoryStore, capability: Capability) -> None:
    store = RecordingStore(memory)
    assert holds(store, capability)
    calls = len(store.calls)
    assert holds(store, capability)
    assert (len(store.calls), memory.capabilities.missing, is_clean(memory)) == (calls, frozenset(), True)


@pytest.mark.parametrize("refusal", [PreconditionFailedError, NotSupportedError])
@pytest.mark.parametrize("capability", CONDITIONS)
def test_a_store_that_refuses_a_condition_that_holds_lacks_it(
    memory: MemoryStore, capability: Capability, refusal: type[Any]
) -> None:
    store = UnconditionalStore(memory, refusal)
    assert not holds(store, capability)
    assert (store.capabilities.missing, is_clean(memory)) == (frozenset({capability}), True)


@pytest.mark.parametrize("capability", OPTIONS)
def test_a_store_that_drops_options_lacks_it(memory: MemoryStore, capability: Capability) -> None:
    assert not holds(DroppingStore(memory), capability)
    assert is_clean(memory)


def test_a_probe_that_fails_decides_nothing(memory: MemoryStore) -> None:
    with pytest.raises(StoreUnavailableError):
        holds(FaultyStore(memory, "put", times=100), Capability.METADATA)
    assert not memory.capabilities.is_known(Capability.METADATA)


@pytest.mark.parametrize("capability", CONDITIONS)
def test_a_refusal_about_something_else_decides_nothing(memory: MemoryStore, capability: Capability) -> None:
    refused = {"put", "complete_upload", "copy", "delete_batch"}
    store = FaultyStore(memory, *refused, error=lambda: NotSupportedError("no tags"), times=100)
    with pytest.raises(NotSupportedError, match="no tags"):
        holds(store, capability)
    assert not memory.capabilities.is_known(capability)


@pytest.mark.parametrize("root", ["", "videos/all"])
@pytest.mark.parametrize("capability", PROBED)
def test_all_that_a_probe_writes_is_at_one_place_of_the_storage(
    memory: MemoryStore, capability: Capability, root: str
) -> None:
    store = RecordingStore(memory)
    Driver(store, root=f"/{root}/")
    assert holds(store, capability)
    keys = {key for call in store.calls for key in ([call.args[0]] if isinstance(call.args[0], str) else call.args[0])}
    assert keys
    assert all(key.startswith(f"{root}/.blobferry-probe/".lstrip("/")) for key in keys)


def test_the_name_of_a_probe_is_a_path_that_every_caller_may_name(memory: MemoryStore) -> None:
    driver = Driver(memory, root="videos")
    assert driver.key("/" + new_probe_key(memory).removeprefix("videos/")).startswith("videos/.blobferry-probe/")


def test_a_probe_whose_blob_cannot_be_removed_still_decides(
    memory: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert holds(FaultyStore(memory, "delete_batch", times=100), Capability.METADATA)
    assert "was not removed" in caplog.text


@pytest.mark.parametrize("capability", PROBED)
def test_a_busy_store_is_asked_again(memory: MemoryStore, capability: Capability) -> None:
    busy = FaultyStore(memory, "put", "copy", "complete_upload", "create_upload", "delete_batch")
    assert holds(busy, capability)
    assert (busy.fired, is_clean(memory)) == (1, True)
