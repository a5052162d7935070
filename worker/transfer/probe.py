"""Finds out whether a store has a capability, by a blob of our own at a place of its own (``probe_keys``).

Asked only once in a store's life, when a refusal may mean either a race with another writer or a store that handles the
request in a way of its own. A race never decides that. What a killed process leaves, ``left_probes`` removes.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, TypeVar

from worker.errors import (
    InvalidStoreRequestError,
    KeyNotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    UploadNotFoundError,
)
from worker.stores.blob_values import BlobOptions, Condition, PutReceipt
from worker.stores.capabilities import Capability
from worker.stores.checksums import Digests
from worker.stores.store import Store
from worker.transfer.probe_keys import new_probe_key

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

TRIES: Final = 4  #: of one call of a probe that the store is too busy for
PAUSE: Final = 0.1  #: seconds before the second try, doubling
#: Refusals that may be about a condition, or about all of the request.
ABOUT_CONDITION: Final = (PreconditionFailedError, NotSupportedError, InvalidStoreRequestError)
_BYTES: Final = b"blobferry probe"
_OPTIONS: Final = BlobOptions(metadata={"blobferry-probe": "kept"})
_ABSENT: Final = Condition(if_none_match=True)
_OTHER: Final = BlobOptions(metadata={"blobferry-probe": "changed"})


def holds(store: Store, capability: Capability) -> bool:
    """Whether the store has the capability; probed unless that is known.

    Raises StoreError if that cannot be found out; nothing is decided then.
    """
    capabilities = store.capabilities
    if not capabilities.is_known(capability):
        try:
            with _probe_key(store) as probe:
                problem = _PROBES[capability](store, probe)
        except (KeyNotFoundError, UploadNotFoundError) as error:  # this process was suspended, and swept behind
            raise StoreUnavailableError(f"{store.name}: a probe was removed while it went on: {error}") from error
        if problem is None:
            capabilities.confirm(capability)
        else:
            capabilities.miss(capability, reason=problem)
    return capabilities.has(capability)


@contextmanager
def _probe_key(store: Store) -> Iterator[str]:
    """A key of our own; its blob is removed in the end."""
    probe = new_probe_key(store)
    try:
        yield probe
    finally:
        try:
            _patiently(lambda: store.delete_batch([probe]))
        except StoreError as error:
            logger.warning("the blob of a probe was not removed", extra={"key": probe, "reason": str(error)})


def _patiently(work: Callable[[], Answer]) -> Answer:
    """Do the work; again if the store is only busy. The key is our own, so any call may be repeated."""
    for number in range(TRIES - 1):
        try:
            return work()
        except StoreError as error:
            if not error.transient:
                raise
        time.sleep(PAUSE * 2**number)
    return work()


def _committed(store: Store, work: Callable[[], PutReceipt]) -> None:
    """Make a commit call, whose answer must not be an empty one."""

    def commit() -> None:
        if not work().etag:
            raise StoreUnavailableError(f"{store.name}: the answer to a probe has no ETag")

    _patiently(commit)


def _put(store: Store, key: str, condition: Condition | None = None) -> None:
    name = store.checksum.upper()  # a bucket with object lock takes no put without one
    checksum = None if name == "NONE" else Digests(name).update(_BYTES).checksum(name)
    _committed(store, lambda: store.put(key, _BYTES, checksum=checksum, condition=condition, options=_OPTIONS))


def _complete(store: Store, key: str, condition: Condition | None = None) -> None:
    upload_id = _patiently(lambda: store.create_upload(key, options=_OPTIONS))
    try:
        part = store.upload_part(key, upload_id, 1, _BYTES)
        _committed(store, lambda: store.complete_upload(key, upload_id, [part], condition=condition))
    except BaseException:
        with suppress(StoreError):
            store.abort_upload(key, upload_id)
        raise


def _etag(store: Store, key: str) -> str:
    """The ETag of a blob of parts: some stores show another one for these than they compare with."""
    _complete(store, key)
    return store.head(key).etag


def _refused(store: Store, key: str, condition: Condition, call: Callable[[Condition | None], object]) -> str | None:
    """How the store refuses a condition that holds at the key. Raises the refusal if it is about something else."""
    try:
        call(condition)
    except ABOUT_CONDITION as error:
        if condition.if_match is not None:
            store.head(key)  # it does not hold if this process was suspended until the blob was swept
        call(None)
        return f"a condition that holds is refused: {error}"
    return None


def _put_on(store: Store, key: str, condition: Condition) -> str | None:
    return _refused(store, key, condition, partial(_put, store, key))


def _complete_on(store: Store, key: str, condition: Condition) -> str | None:
    return _refused(store, key, condition, partial(_complete, store, key))


def _copy_on(store: Store, key: str, condition_of: Callable[[str], Condition]) -> str | None:
    _put(store, key)
    with _probe_key(store) as target:

        def copy(condition: Condition | None) -> None:
            _committed(store, lambda: store.copy(key, target, condition=condition, options=_OTHER))

        return _refused(store, target, condition_of(target), copy)


def _delete_if_match(store: Store, key: str) -> str | None:
    def delete(condition: Condition | None) -> None:
        _patiently(lambda: store.delete_batch([key], if_match=condition.if_match if condition else None))

    return _refused(store, key, Condition(if_match=_etag(store, key)), delete)


def _keeps_metadata(store: Store, key: str) -> str | None:
    _put(store, key)
    return None if dict(store.head(key).metadata) == _OPTIONS.metadata else "the metadata of a blob is dropped"


def _copies_options(store: Store, key: str) -> str | None:
    _put(store, key)
    with _probe_key(store) as target:
        _committed(store, partial(store.copy, key, target, options=_OTHER))
        kept = dict(store.head(target).metadata) == _OTHER.metadata
    return None if kept else "a copy does not get the metadata that it is given"


_PROBES: Final[Mapping[Capability, Callable[[Store, str], str | None]]] = {
    Capability.PUT_IF_MATCH: lambda store, key: _put_on(store, key, Condition(if_match=_etag(store, key))),
    Capability.PUT_IF_NONE_MATCH: lambda store, key: _put_on(store, key, _ABSENT),
    Capability.COPY_IF_MATCH: lambda store, key: _copy_on(
        store, key, lambda target: Condition(if_match=_etag(store, target))
    ),
    Capability.COPY_IF_NONE_MATCH: lambda store, key: _copy_on(store, key, lambda target: _ABSENT),
    Capability.COMPLETE_IF_MATCH: lambda store, key: _complete_on(store, key, Condition(if_match=_etag(store, key))),
    Capability.COMPLETE_IF_NONE_MATCH: lambda store, key: _complete_on(store, key, _ABSENT),
    Capability.DELETE_IF_MATCH: _delete_if_match,
    Capability.METADATA: _keeps_metadata,
    Capability.COPY_OPTIONS: _copies_options,
}

PROBED: Final = tuple(_PROBES)
"""The capabilities that :func:`holds` can find out."""
