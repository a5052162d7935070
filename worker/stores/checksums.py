"""Checksums, as ``"ALGORITHM:base64"``: of a part, and of the whole blob joined from those of its parts.

Joining costs microseconds a part, so the store can check the whole blob after any number of resumes on any machines
without anybody reading the source again. CRC64NVME runs at 20 GiB/s and more, hence the default.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from awscrt import checksums as crt

from worker.stores.store import Body

_Crc = tuple[Callable[[Any, int], int], Callable[[int, int, int], int], int]
_CRCS: Final[Mapping[str, _Crc]] = {  # checksum of more bytes, joining two checksums, bytes of one
    "CRC64NVME": (crt.crc64nvme, crt.combine_crc64nvme, 8),
    "CRC32C": (crt.crc32c, crt.combine_crc32c, 4),
}
_READ: Final = 1024 * 1024  #: bytes


def checksum_of(body: Body, algorithm: str) -> str | None:
    """The checksum of a body, which is read through and rewound; None for ``none``."""
    name = algorithm.upper()
    if name == "NONE":
        return None
    if name == "MD5":
        return f"MD5:{b64encode(_md5(body)).decode()}"
    update, _, width = _CRCS[name]
    value = 0
    for piece in _pieces(body):
        value = update(piece, value)
    return f"{name}:{b64encode(value.to_bytes(width, 'big')).decode()}"


def md5_etag_of(body: Body) -> str:
    """The ETag, without quotes, that many stores give to exactly these bytes."""
    return _md5(body).hex()


def join_checksums(parts: Iterable[tuple[str | None, int]]) -> str | None:
    """The checksum of the whole from the (checksum, size) of each part in order; None if it cannot be told."""
    name, value = "", 0
    for checksum, size in parts:
        part_name, _, encoded = (checksum or "").partition(":")
        if part_name not in _CRCS or (name and part_name != name):
            return None
        part_value = int.from_bytes(b64decode(encoded), "big")
        value = _CRCS[part_name][1](value, part_value, size) if name else part_value
        name = part_name
    return f"{name}:{b64encode(value.to_bytes(_CRCS[name][2], 'big')).decode()}" if name else None


def multipart_etag(etags: Iterable[str]) -> str | None:
    """The ETag, without quotes, that S3 gives to a blob of these parts; None if theirs are no MD5s (some KMS keys)."""
    try:
        digests = [bytes.fromhex(etag.strip('"')) for etag in etags]
    except ValueError:
        return None
    if not digests or any(len(digest) != 16 for digest in digests):
        return None
    joined = hashlib.md5(b"".join(digests), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(digests)}"


def _md5(body: Body) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in _pieces(body):
        digest.update(piece)
    return digest.digest()


def _pieces(body: Body) -> Iterable[bytes | memoryview]:
    body.seek(0)
    while piece := body.read(_READ):
        yield piece
    body.seek(0)
