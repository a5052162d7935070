"""What a store is tried out with. Each probe makes its own blobs on the bench.

A probe returns None if the store does what it should, else what it does instead in a few words. It raises
NotSupportedError where the store says that it does not know this, another StoreError where something is broken.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from worker.doctor.bench import ABSENT, OPTIONS, SMALL, Bench
from worker.errors import (
    ChecksumMismatchError,
    InvalidPartError,
    InvalidStoreRequestError,
    PermissionDeniedError,
    PreconditionFailedError,
    StoreError,
)
from worker.stores.blob_values import Condition

Probe = Callable[[Bench], str | None]
Publish = Callable[[Bench, str, Condition], object]

MAX_SKEW: Final = 30.0  #: seconds between the store's clock and this machine's

_WRONG: Final = '"00000000000000000000000000000000"'  #: an ETag that no blob here has
#: Transfers then do without the condition, as where a store does not know it.
_MISTAKEN: Final = "the store refuses it even where it holds"
_OTHER: Final = b"These bytes must never be seen by anybody."


def _refused(call: Callable[[], object], *errors: type[StoreError]) -> str | None:
    try:
        call()
    except errors:
        return None
    return "the store ignores it"


# --- reading and writing ---------------------------------------------------------------------------------------------


def reach(bench: Bench) -> str | None:
    """One request."""
    bench.store.list_page(f"{bench.prefix}/", limit=1)
    return None


def write(bench: Bench) -> str | None:
    """A small blob."""
    return None if bench.read(bench.blob().key) == SMALL else "other bytes come back"


def write_parts(bench: Bench) -> str | None:
    """A blob of two parts."""
    return None if bench.read(bench.large.key) == bench.first_part + SMALL else "other bytes come back"


def read_range(bench: Bench) -> str | None:
    """A few bytes out of the middle."""
    return None if bench.read(bench.blob().key, 5, 7) == SMALL[5:12] else "other bytes come back"


def copy_range(bench: Bench) -> str | None:
    """A few bytes around the border between two parts."""
    store, key, size = bench.store, bench.key(), len(bench.first_part)
    upload_id = bench.open(key)
    part = store.copy_part(key, upload_id, 1, bench.large.key, size - 4, 9, source_if_match=bench.large.etag)
    store.complete_upload(key, upload_id, [part], size=9)
    return None if bench.read(key) == bench.first_part[-4:] + SMALL[:5] else "other bytes are copied"


# --- conditions ------------------------------------------------------------------------------------------------------


def put(bench: Bench, key: str, condition: Condition) -> object:
    """Publish in one piece."""
    return bench.store.put(key, _OTHER, condition=condition, options=OPTIONS)


def complete(bench: Bench, key: str, condition: Condition) -> None:
    """Publish in parts."""
    bench.upload(key, _OTHER, condition=condition)


def copy(bench: Bench, key: str, condition: Condition) -> object:
    """Publish a copy."""
    return bench.store.copy(bench.blob().key, key, condition=condition)


def if_none_match(publish: Publish) -> Probe:
    """Nothing there: published. Something there: refused."""

    def probe(bench: Bench) -> str | None:
        try:
            publish(bench, bench.key(), ABSENT)
        except PreconditionFailedError:
            return _MISTAKEN
        return _refused(lambda: publish(bench, bench.blob().key, ABSENT), PreconditionFailedError)

    return probe


def if_match(publish: Publish) -> Probe:
    """The blob that is there: replaced. Another one there: refused."""

    def probe(bench: Bench) -> str | None:
        head = bench.blob()
        try:
            publish(bench, head.key, Condition(if_match=head.etag))
        except PreconditionFailedError:
            return _MISTAKEN
        wrong = Condition(if_match=_WRONG)
        return _refused(lambda: publish(bench, head.key, wrong), PreconditionFailedError)

    return probe


def delete_if_match(bench: Bench) -> str | None:
    """The same for a delete, of blobs in one piece and in parts."""
    for make in (bench.blob, bench.blob_in_parts):
        first, second = make(), make()
        try:
            bench.store.delete_batch([first.key], if_match=first.etag)
        except PreconditionFailedError:
            return _MISTAKEN
        delete = partial(bench.store.delete_batch, [second.key], if_match=_WRONG)
        if found := _refused(delete, PreconditionFailedError):
            return found
    return None


def get_if_match(bench: Bench) -> str | None:
    """The same for a read."""
    head = bench.blob()
    bench.read(head.key, if_match=head.etag)
    return _refused(lambda: bench.read(head.key, if_match=_WRONG), PreconditionFailedError)


def source_if_match(bench: Bench) -> str | None:
    """The same for what is copied whole."""
    head = bench.blob()
    bench.store.copy(head.key, bench.key(), source_if_match=head.etag)
    return _refused(lambda: bench.store.copy(head.key, bench.key(), source_if_match=_WRONG), PreconditionFailedError)


def source_range_if_match(bench: Bench) -> str | None:
    """The same for what is copied in ranges; that one is copied which is still there, :func:`copy_range` shows."""
    key, source = bench.key(), bench.large.key
    upload_id = bench.open(key)
    return _refused(
        lambda: bench.store.copy_part(key, upload_id, 1, source, 0, 5, source_if_match=_WRONG), PreconditionFailedError
    )


# --- checksums, and the rest -----------------------------------------------------------------------------------------


def compare_whole(bench: Bench) -> str | None:
    """The checksum of other bytes at completion."""
    if not bench.has_whole_checksums:
        return f"checksum = {bench.store.checksum} has none"
    errors = (ChecksumMismatchError, InvalidPartError, InvalidStoreRequestError)
    return _refused(lambda: bench.upload(bench.key(), SMALL, whole=_OTHER), *errors)


def show_whole(bench: Bench) -> str | None:
    """HEAD of an upload that was completed with its checksum."""
    if not bench.has_whole_checksums:
        return f"checksum = {bench.store.checksum} has none"
    shown = bench.blob_in_parts().checksum
    return None if shown == bench.checksum(SMALL) else f"the store shows {shown or 'none'}"


def compare_part(bench: Bench) -> str | None:
    """The checksum of other bytes with a part."""
    checksum = bench.checksum(_OTHER)
    if checksum is None:
        return "checksum = none has none"
    key = bench.key()
    upload_id = bench.open(key)
    errors = (ChecksumMismatchError, InvalidStoreRequestError)
    return _refused(lambda: bench.store.upload_part(key, upload_id, 1, SMALL, checksum=checksum), *errors)


def keep_metadata(bench: Bench) -> str | None:
    """HEAD of a blob in one piece and of one in parts."""
    heads = (bench.blob(), bench.large)
    return None if all(dict(head.metadata) == OPTIONS.metadata for head in heads) else "the store drops it"


def list_uploads(bench: Bench) -> str | None:
    """Those at a key that has one."""
    key = bench.key()
    upload_id = bench.open(key)
    try:
        listed = {entry.upload_id for entry in bench.store.list_uploads(key)}
    except PermissionDeniedError:
        return "the credentials do not allow it"
    return None if upload_id in listed else "the store does not list it"


def agree_on_the_time(bench: Bench) -> str | None:
    """The date of an answer."""
    asked = datetime.now(UTC)
    ahead = (bench.store.list_page(f"{bench.prefix}/", limit=1).served_at - asked).total_seconds()
    if abs(ahead) <= MAX_SKEW:
        return None
    return f"the store's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
