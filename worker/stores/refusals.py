"""What the memory store checks of bytes and parts, as strictly as S3 does."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from awscrt import checksums

from worker.errors import ChecksumMismatchError, InvalidPartError, InvalidStoreRequestError
from worker.stores.blob_values import Limits, PartReceipt
from worker.stores.store import Body
from worker.units import KIB

_READ_SIZE: Final = 128 * KIB
_MAX_KEY: Final = 1024  # bytes. Source: S3 user guide, "Creating object key names"
DIGESTS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "CRC64NVME": lambda data: checksums.crc64nvme(data).to_bytes(8, "big"),
    "CRC32C": lambda data: checksums.crc32c(data).to_bytes(4, "big"),
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
}


def checksum_of(algorithm: str, data: bytes) -> str:
    """``"ALGORITHM:base64"`` of the data."""
    return f"{algorithm}:{base64.b64encode(DIGESTS[algorithm](data)).decode()}"


def etag_of(data: bytes) -> str:
    """The quoted MD5, as S3 gives it to what came in one piece."""
    return f'"{DIGESTS["MD5"](data).hex()}"'


def etag_of_parts(parts: Sequence[bytes]) -> str:
    """The quoted MD5 of the parts' MD5s, and their number, as S3 gives it to what came in parts."""
    digests = b"".join(DIGESTS["MD5"](part) for part in parts)
    return f'"{DIGESTS["MD5"](digests).hex()}-{len(parts)}"'


def received(body: Body | bytes, checksum: str | None, limits: Limits, key: str) -> bytes:
    """The bytes of a body, read piece by piece, which must be those that the checksum was made of."""
    check_key(key)
    data = body if isinstance(body, bytes) else _read(body)
    if len(data) > limits.max_part_size:
        raise InvalidStoreRequestError(f"memory: {len(data)} bytes for {key!r}; at most {limits.max_part_size}")
    check_checksum(data, checksum, key)
    return data


def _read(body: Body) -> bytes:
    body.seek(0)
    data = bytearray()
    while piece := body.read(_READ_SIZE):
        data += piece
    if len(data) != len(body):
        raise InvalidStoreRequestError(f"memory: the body has {len(data)} bytes and says {len(body)}")
    return bytes(data)


def check_key(key: str) -> None:
    """Refuse an empty key and one that is too long."""
    if not 0 < len(key.encode()) <= _MAX_KEY:
        raise InvalidStoreRequestError(f"memory: a key has 1 to {_MAX_KEY} bytes, not {len(key.encode())}: {key!r}")


def check_checksum(data: bytes, checksum: str | None, key: str) -> None:
    """Refuse bytes other than those that the checksum was made of."""
    if checksum is None:
        return
    algorithm = checksum.partition(":")[0]
    if algorithm not in DIGESTS:
        raise InvalidStoreRequestError(f"memory: unknown checksum algorithm {algorithm!r}")
    found = checksum_of(algorithm, data)
    if found != checksum:
        raise ChecksumMismatchError(f"memory: {key!r} has the checksum {found}, not {checksum}")


def check_part_number(part_number: int, limits: Limits) -> None:
    """Refuse a number outside of 1..max_parts."""
    if not 1 <= part_number <= limits.max_parts:
        raise InvalidStoreRequestError(f"memory: part number {part_number} is not within 1..{limits.max_parts}")


def check_parts(key: str, named: Sequence[PartReceipt], held: Mapping[int, PartReceipt], limits: Limits) -> None:
    """Refuse a list of parts that S3 would not complete an upload with."""
    if not named:
        raise InvalidStoreRequestError(f"memory: cannot complete {key!r} with an empty list of parts")
    numbers = [part.part_number for part in named]
    if numbers != sorted(set(numbers)):
        raise InvalidPartError(f"memory: the parts of {key!r} are not in ascending order")
    for part in named:
        _check_part(key, part, held.get(part.part_number))
    for number in numbers[:-1]:
        if held[number].size < limits.min_part_size:
            raise InvalidPartError(
                f"memory: part {number} of {key!r} has {held[number].size} bytes; "
                f"all but the last need {limits.min_part_size}"
            )


def _check_part(key: str, named: PartReceipt, held: PartReceipt | None) -> None:
    # Some callers strip the quotes of an ETag, and S3 takes it either way.
    if held is None or held.etag.strip('"') != named.etag.strip('"'):
        raise InvalidPartError(f"memory: part {named.part_number} of {key!r} with ETag {named.etag} is not here")
    if named.checksum and held.checksum and named.checksum != held.checksum:
        raise InvalidPartError(f"memory: part {named.part_number} of {key!r} has the checksum {held.checksum}")
