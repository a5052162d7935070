"""Finds out whether a store has a capability, by a blob of our own beside the key in question.

Asked only once in a store's life, when a refusal may mean either a race with another writer or a store that handles the
request in a way of its own. A race never decides that.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final
from uuid import uuid4

from worker.errors import InvalidStoreRequestError, NotSupportedError, PreconditionFailedError, StoreError
from worker.stores.blob_values import BlobHead, BlobOptions, Condition
from worker.stores.capabilities import Capability
from worker.stores.store import Store

logger = logging.getLogger(__name__)

_REFUSALS: Final = (PreconditionFailedError, NotSupportedError, InvalidStoreRequestError)
_BYTES: Final = b"blobferry probe"
_OPTIONS: Final = BlobOptions(metadata={"blobferry-probe": "kept"})
_OTHER: Final = BlobOptions(metadata={"blobferry-probe": "changed"})


def holds(store: Store, capability: Capability, key: str) -> bool:
    """Whether the store has the capability; probed beside ``key`` unless that is known. Raises StoreError."""
    capabilities = store.capabilities
    if not capabilities.is_known(capability):
        with _probe_key(store, key) as probe:
            problem = _PROBES[capability](store, probe)
        if problem is None:
            capabilities.confirm(capability)
        else:
            capabilities.miss(capability, reason=problem)
    return capabilities.has(capability)


@contextmanager
def _probe_key(store: Store, key: str) -> Iterator[str]:
    """A key of our own; its blob is removed in the end."""
    probe = f"{key[:900]}.{uuid4().hex}.probe"
    try:
        yield probe
    finally:
        try:
            store.delete_batch([probe])
        except StoreError as error:
            logger.warning("the blob of a probe was not removed", extra={"key": probe, "reason": str(error)})


def _make(store: Store, key: str) -> BlobHead:
    """The probe's blob, as one of parts: some stores show another ETag for these than they compare with."""
    upload_id = store.create_upload(key, options=_OPTIONS)
    try:
        part = store.upload_part(key, upload_id, 1, _BYTES)
        store.complete_upload(key, upload_id, [part])
    except BaseException:
        with suppress(StoreError):
            store.abort_upload(key, upload_id)
        raise
    return store.head(key)


def _refused(work: Callable[[], object]) -> str | None:
    try:
        work()
    except _REFUSALS as error:
        return f"a condition that holds is refused: {error}"
    return None


def _put_if_match(store: Store, key: str) -> str | None:
    return _refused(lambda: store.put(key, _BYTES, condition=Condition(if_match=_make(store, key).etag)))


def _put_if_none_match(store: Store, key: str) -> str | None:
    return _refused(lambda: store.put(key, _BYTES, condition=Condition(if_none_match=True)))


def _copy_on(store: Store, key: str, condition: Condition | None, *, is_there: bool) -> str | None:
    with _probe_key(store, key) as target:
        source = _make(store, key)
        if is_there:
            condition = Condition(if_match=_make(store, target).etag)
        return _refused(lambda: store.copy(source.key, target, condition=condition, options=_OTHER))


def _complete_on(store: Store, key: str, *, is_there: bool) -> str | None:
    condition = Condition(if_match=_make(store, key).etag) if is_there else Condition(if_none_match=True)
    upload_id = store.create_upload(key)
    part = store.upload_part(key, upload_id, 1, _BYTES)
    problem = _refused(lambda: store.complete_upload(key, upload_id, [part], condition=condition))
    if problem is not None:
        with suppress(StoreError):
            store.abort_upload(key, upload_id)
    return problem


def _delete_if_match(store: Store, key: str) -> str | None:
    return _refused(lambda: store.delete_batch([key], if_match=_make(store, key).etag))


def _keeps_metadata(store: Store, key: str) -> str | None:
    store.put(key, _BYTES, options=_OPTIONS)
    return None if dict(store.head(key).metadata) == _OPTIONS.metadata else "the metadata of a blob is dropped"


def _copies_options(store: Store, key: str) -> str | None:
    with _probe_key(store, key) as target:
        store.put(key, _BYTES, options=_OPTIONS)
        store.copy(key, target, options=_OTHER)
        kept = dict(store.head(target).metadata) == _OTHER.metadata
    return None if kept else "a copy does not get the metadata that it is given"


_PROBES: Final[Mapping[Capability, Callable[[Store, str], str | None]]] = {
    Capability.PUT_IF_MATCH: _put_if_match,
    Capability.PUT_IF_NONE_MATCH: _put_if_none_match,
    Capability.COPY_IF_MATCH: lambda store, key: _copy_on(store, key, None, is_there=True),
    Capability.COPY_IF_NONE_MATCH: lambda store, key: _copy_on(
        store, key, Condition(if_none_match=True), is_there=False
    ),
    Capability.COMPLETE_IF_MATCH: lambda store, key: _complete_on(store, key, is_there=True),
    Capability.COMPLETE_IF_NONE_MATCH: lambda store, key: _complete_on(store, key, is_there=False),
    Capability.DELETE_IF_MATCH: _delete_if_match,
    Capability.METADATA: _keeps_metadata,
    Capability.COPY_OPTIONS: _copies_options,
}
