"""What S3 refuses, refused as strictly by the stores that are our own. ``store`` is the store's name in messages."""

from collections.abc import Mapping, Sequence

from blobferry.checks.paths import MAX_KEY_BYTES
from worker.errors import (
    ChecksumMismatchError,
    InvalidPartError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    UploadNotFoundError,
)
from worker.stores.blob_values import Condition, DeleteFailure, Limits, PartReceipt
from worker.stores.checksums import ALGORITHMS


def key_bytes(store: str, key: str) -> bytes:
    """The key in UTF-8, whose byte order is that of listings. Refuses one that cannot be written in it."""
    try:
        return key.encode()
    except UnicodeEncodeError as error:
        raise InvalidStoreRequestError(f"{store}: the key {key!r} cannot be written in UTF-8") from error


def check_key(store: str, key: str) -> None:
    """Refuse an empty key, one that is too long, and one that cannot be written in UTF-8."""
    size = len(key_bytes(store, key))
    if not 0 < size <= MAX_KEY_BYTES:
        raise InvalidStoreRequestError(f"{store}: a key has 1 to {MAX_KEY_BYTES} bytes, not {size}: {key!r}")


def check_size(store: str, key: str, size: int, limits: Limits) -> None:
    """Refuse more bytes than one put, copy or part may hold."""
    if size > limits.max_part_size:
        raise InvalidStoreRequestError(f"{store}: {size} bytes for {key!r}; at most {limits.max_part_size}")


def check_body_size(store: str, found: int, said: int) -> None:
    """Refuse a body that has more or fewer bytes than its length says."""
    if found != said:
        raise InvalidStoreRequestError(f"{store}: the body has {found} bytes and says {said}")


def check_algorithm(store: str, checksum: str | None) -> str | None:
    """The algorithm of a checksum, if there is one. Refuses one that is not known."""
    if checksum is None:
        return None
    algorithm = checksum.partition(":")[0]
    if algorithm not in ALGORITHMS:
        raise InvalidStoreRequestError(f"{store}: unknown checksum algorithm {algorithm!r}")
    return algorithm


def check_checksum(store: str, key: str, found: str | None, wanted: str | None) -> None:
    """Refuse bytes other than those that the wanted checksum was made of. None: not known, not wanted."""
    if found is not None and wanted is not None and found != wanted:
        raise ChecksumMismatchError(f"{store}: {key!r} has the checksum {found}, not {wanted}")


def check_condition(store: str, key: str, condition: Condition | None, etag: str | None) -> None:
    """Refuse if the key is not as the call demands. ``etag`` is that of the blob that is there; None: there is none."""
    if condition is None:
        return
    if condition.if_none_match and etag is not None:
        raise PreconditionFailedError(f"{store}: something is stored under {key!r} already")
    if condition.if_match is not None and condition.if_match != etag:
        raise PreconditionFailedError(f"{store}: {key!r} no longer has the ETag {condition.if_match}")


def key_not_found(store: str, bucket: str, key: str) -> KeyNotFoundError:
    """The error for a key that has no blob."""
    return KeyNotFoundError(f"{store}: nothing is stored under {key!r} in {bucket!r}")


def upload_not_found(store: str, key: str, upload_id: str) -> UploadNotFoundError:
    """The error for an upload that is not open."""
    return UploadNotFoundError(f"{store}: no upload {upload_id!r} to {key!r}: completed, aborted or never opened")


def check_if_match(store: str, key: str, etag: str, if_match: str | None) -> None:
    """Refuse to read a blob with another ETag than the one that the reader is pinned to."""
    if if_match is not None and if_match != etag:
        raise PreconditionFailedError(f"{store}: {key!r} has the ETag {etag}, not {if_match}")


def check_offset(store: str, key: str, offset: int, size: int | None, there: int) -> None:
    """Refuse to read from behind the last of the ``there`` bytes, unless nothing is wanted or all of an empty blob."""
    if size != 0 and offset >= there and (offset, size) != (0, None):
        raise RangeNotSatisfiableError(f"{store}: {key!r} has {there} bytes and none at {offset}")


def check_part_range(store: str, key: str, offset: int, size: int, there: int) -> None:
    """Refuse to copy a range that does not lie within the ``there`` bytes of its source."""
    if offset < 0 or size < 1 or offset + size > there:
        raise InvalidStoreRequestError(f"{store}: {key!r} has no {size} bytes at {offset}")


def check_copy(store: str, source_key: str, key: str, *, is_unchanged: bool) -> None:
    """Refuse to copy a blob onto itself with nothing changed."""
    if source_key == key and is_unchanged:
        raise InvalidStoreRequestError(f"{store}: copying {key!r} onto itself would change nothing")


def changed_keys(store: str, wanted: Mapping[str, str], there: Mapping[str, str]) -> list[DeleteFailure]:
    """The keys of a batch whose blobs have other ETags than the wanted ones: they stay."""
    changed = [key for key, etag in there.items() if wanted.get(key, etag) != etag]
    return [DeleteFailure(key, "PreconditionFailed", f"{store}: {key!r} has another ETag") for key in changed]


def check_part_number(store: str, part_number: int, limits: Limits) -> None:
    """Refuse a number outside of 1..max_parts."""
    if not 1 <= part_number <= limits.max_parts:
        raise InvalidStoreRequestError(f"{store}: part number {part_number} is not within 1..{limits.max_parts}")


def check_parts(
    store: str, key: str, named: Sequence[PartReceipt], held: Mapping[int, PartReceipt], limits: Limits
) -> None:
    """Refuse a list of parts that S3 would not complete an upload with.

    Args:
        store: the store's name.
        key: of the upload.
        named: the parts that the caller wants the blob to be made of, in this order.
        held: the parts that the store has, by number.
        limits: of the store.
    """
    if not named:
        raise InvalidStoreRequestError(f"{store}: cannot complete {key!r} with an empty list of parts")
    numbers = [part.part_number for part in named]
    if numbers != sorted(set(numbers)):
        raise InvalidPartError(f"{store}: the parts of {key!r} are not in ascending order")
    for part in named:
        _check_part(store, key, part, held.get(part.part_number))
    for number in numbers[:-1]:
        if held[number].size < limits.min_part_size:
            raise InvalidPartError(
                f"{store}: part {number} of {key!r} has {held[number].size} bytes; "
                f"all but the last need {limits.min_part_size}"
            )


def check_whole_size(store: str, key: str, found: int, wanted: int | None) -> None:
    """Refuse to complete an upload whose parts hold another number of bytes than the whole is meant to have."""
    if wanted is not None and wanted != found:
        raise InvalidStoreRequestError(f"{store}: the parts of {key!r} hold {found} bytes instead of {wanted}")


def _check_part(store: str, key: str, named: PartReceipt, held: PartReceipt | None) -> None:
    # Some callers strip the quotes of an ETag, and S3 takes it either way.
    if held is None or held.etag.strip('"') != named.etag.strip('"'):
        raise InvalidPartError(f"{store}: part {named.part_number} of {key!r} with ETag {named.etag} is not here")
    if named.checksum and held.checksum and named.checksum != held.checksum:
        raise InvalidPartError(f"{store}: part {named.part_number} of {key!r} has the checksum {held.checksum}")
