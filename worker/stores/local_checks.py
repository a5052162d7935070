"""What the local store checks of parts, as strictly as S3 does. Pure."""

from collections.abc import Mapping, Sequence

from worker.errors import InvalidPartError, InvalidStoreRequestError
from worker.stores.blob_values import Limits, PartReceipt
from worker.stores.local_records import Record


def check_size(size: int, limits: Limits, key: str) -> None:
    """Refuse more bytes than one put, copy or part may hold."""
    if size > limits.max_part_size:
        raise InvalidStoreRequestError(f"local: {size} bytes for {key!r}; at most {limits.max_part_size}")


def check_part_number(part_number: int, limits: Limits) -> None:
    """Refuse a number outside of 1..max_parts."""
    if not 1 <= part_number <= limits.max_parts:
        raise InvalidStoreRequestError(f"local: part number {part_number} is not within 1..{limits.max_parts}")


def check_parts(key: str, named: Sequence[PartReceipt], held: Mapping[int, Record], limits: Limits) -> None:
    """Refuse a list of parts that S3 would not complete an upload with."""
    if not named:
        raise InvalidStoreRequestError(f"local: cannot complete {key!r} with an empty list of parts")
    numbers = [part.part_number for part in named]
    if numbers != sorted(set(numbers)):
        raise InvalidPartError(f"local: the parts of {key!r} are not in ascending order")
    for part in named:
        _check_part(key, part, held.get(part.part_number))
    for number in numbers[:-1]:
        if held[number].size < limits.min_part_size:
            raise InvalidPartError(
                f"local: part {number} of {key!r} has {held[number].size} bytes; "
                f"all but the last need {limits.min_part_size}"
            )


def _check_part(key: str, named: PartReceipt, held: Record | None) -> None:
    # Some callers strip the quotes of an ETag, and S3 takes it either way.
    if held is None or held.etag.strip('"') != named.etag.strip('"'):
        raise InvalidPartError(f"local: part {named.part_number} of {key!r} with ETag {named.etag} is not here")
    kept = held.checksums.get((named.checksum or "").partition(":")[0])
    if kept is not None and kept != named.checksum:
        raise InvalidPartError(f"local: part {named.part_number} of {key!r} has the checksum {kept}")
