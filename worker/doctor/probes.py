"""The probes of a store's guarantees. Each one makes its own blobs on the bench.

A probe returns None if the store keeps the guarantee, else a few words about what it does instead. It raises
NotSupportedError if the store refuses the feature as unknown, another StoreError if something is broken.
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
CommitCall = Callable[[Bench, str, Condition], object]

MAX_SKEW: Final = 30.0  #: seconds that the store's clock may differ from this machine's

_WRONG: Final = '"00000000000000000000000000000000"'  #: an ETag that no blob on the bench has
#: Transfers then drop the condition, as on a store that does not know it.
_MISTAKEN: Final = "the store refuses it even where it holds"
_OTHER: Final = b"These bytes must never become visible."


def _refused(call: Callable[[], object], *errors: type[StoreError]) -> str | None:
    try:
        call()
    except errors:
        return None
    return "the store ignores it"


# --- reading and writing ---------------------------------------------------------------------------------------------


def reach(bench: Bench) -> str | None:
    """The store answers a listing."""
    bench.store.list_page(f"{bench.prefix}/", limit=1)
    return None


def write(bench: Bench) -> str | None:
    """A small blob can be written and read."""
    return None if bench.read(bench.blob().key) == SMALL else "other bytes come back"


def write_parts(bench: Bench) -> str | None:
    """A blob of two parts can be written and read."""
    return None if bench.read(bench.large.key) == bench.first_part + SMALL else "other bytes come back"


def read_range(bench: Bench) -> str | None:
    """A few bytes from the middle of a blob can be read."""
    return None if bench.read(bench.blob().key, 5, 7) == SMALL[5:12] else "other bytes come back"


def copy_range(bench: Bench) -> str | None:
    """A few bytes around the border between two parts can be copied into a new upload."""
    store, key, size = bench.store, bench.key(), len(bench.first_part)
    upload_id = bench.open(key)
    part = store.copy_part(key, upload_id, 1, bench.large.key, size - 4, 9, source_if_match=bench.large.etag)
    store.complete_upload(key, upload_id, [part], size=9)
    return None if bench.read(key) == bench.first_part[-4:] + SMALL[:5] else "other bytes are copied"


# --- conditions ------------------------------------------------------------------------------------------------------


def put(bench: Bench, key: str, condition: Condition) -> object:
    """Commit by one put."""
    return bench.store.put(key, _OTHER, condition=condition, options=OPTIONS)


def complete(bench: Bench, key: str, condition: Condition) -> None:
    """Commit by completing an upload."""
    bench.upload(key, _OTHER, condition=condition)


def copy(bench: Bench, key: str, condition: Condition) -> object:
    """Commit by a copy."""
    return bench.store.copy(bench.blob().key, key, condition=condition)


def if_none_match(commit: CommitCall) -> Probe:
    """A probe: If-None-Match lets the call create a blob, and refuses to replace one."""

    def probe(bench: Bench) -> str | None:
        try:
            commit(bench, bench.key(), ABSENT)
        except PreconditionFailedError:
            return _MISTAKEN
        return _refused(lambda: commit(bench, bench.blob().key, ABSENT), PreconditionFailedError)

    return probe


def if_match(commit: CommitCall) -> Probe:
    """A probe: If-Match lets the call replace the blob of that ETag, and refuses to replace another."""

    def probe(bench: Bench) -> str | None:
        head = bench.blob()
        try:
            commit(bench, head.key, Condition(if_match=head.etag))
        except PreconditionFailedError:
            return _MISTAKEN
        wrong = Condition(if_match=_WRONG)
        return _refused(lambda: commit(bench, head.key, wrong), PreconditionFailedError)

    return probe


def delete_if_match(bench: Bench) -> str | None:
    """A delete with If-Match is refused for another ETag, for a blob put in one piece and for one of parts."""
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
    """A read with If-Match is refused for another ETag."""
    head = bench.blob()
    bench.read(head.key, if_match=head.etag)
    return _refused(lambda: bench.read(head.key, if_match=_WRONG), PreconditionFailedError)


def source_if_match(bench: Bench) -> str | None:
    """A copy with a wrong source ETag is refused."""
    head = bench.blob()
    bench.store.copy(head.key, bench.key(), source_if_match=head.etag)
    return _refused(lambda: bench.store.copy(head.key, bench.key(), source_if_match=_WRONG), PreconditionFailedError)


def source_range_if_match(bench: Bench) -> str | None:
    """UploadPartCopy with a wrong source ETag is refused; :func:`copy_range` tests the right one."""
    key, source = bench.key(), bench.large.key
    upload_id = bench.open(key)
    return _refused(
        lambda: bench.store.copy_part(key, upload_id, 1, source, 0, 5, source_if_match=_WRONG), PreconditionFailedError
    )


# --- checksums, and the rest -----------------------------------------------------------------------------------------


def compare_whole(bench: Bench) -> str | None:
    """Completing an upload with the checksum of other bytes is refused."""
    if not bench.has_whole_checksums:
        return f"checksum = {bench.store.checksum} has none"
    errors = (ChecksumMismatchError, InvalidPartError, InvalidStoreRequestError)
    return _refused(lambda: bench.upload(bench.key(), SMALL, whole=_OTHER), *errors)


def show_whole(bench: Bench) -> str | None:
    """HEAD shows the checksum that an upload was completed with."""
    if not bench.has_whole_checksums:
        return f"checksum = {bench.store.checksum} has none"
    shown = bench.blob_in_parts().checksum
    return None if shown == bench.checksum(SMALL) else f"the store shows {shown or 'none'}"


def compare_part(bench: Bench) -> str | None:
    """A part with the checksum of other bytes is refused."""
    checksum = bench.checksum(_OTHER)
    if checksum is None:
        return "checksum = none sends no checksums"
    key = bench.key()
    upload_id = bench.open(key)
    errors = (ChecksumMismatchError, InvalidStoreRequestError)
    return _refused(lambda: bench.store.upload_part(key, upload_id, 1, SMALL, checksum=checksum), *errors)


def keep_metadata(bench: Bench) -> str | None:
    """HEAD shows the metadata of a blob put in one piece and of one of parts."""
    heads = (bench.blob(), bench.large)
    return None if all(dict(head.metadata) == OPTIONS.metadata for head in heads) else "the store drops it"


def list_uploads(bench: Bench) -> str | None:
    """An unfinished upload is listed."""
    key = bench.key()
    upload_id = bench.open(key)
    try:
        listed = {entry.upload_id for entry in bench.store.list_uploads(key)}
    except PermissionDeniedError:
        return "the credentials do not permit it"
    return None if upload_id in listed else "the store does not list it"


def agree_on_the_time(bench: Bench) -> str | None:
    """The dates of the store's answers agree with this machine's clock."""
    asked = datetime.now(UTC)
    ahead = (bench.store.list_page(f"{bench.prefix}/", limit=1).served_at - asked).total_seconds()
    if abs(ahead) <= MAX_SKEW:
        return None
    return f"the store's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
