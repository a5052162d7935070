"""Checksums, as ``"ALGORITHM:base64"``, and ETags: of bytes, and of a whole blob joined from those of its parts.

Joining costs microseconds a part, so a store can check the whole blob after any number of resumes on any machines
without reading the source again. CRC64NVME runs at 20 GiB/s and more, hence the default.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO, FileIO
from typing import Any, Final, Self

from awscrt import checksums as crt

from worker.stores.blob_values import Body

_Crc = tuple[Callable[[Any, int], int], Callable[[int, int, int], int], int]
_CRCS: Final[Mapping[str, _Crc]] = {  # checksum of more bytes, joining two checksums, bytes of one
    "CRC64NVME": (crt.crc64nvme, crt.combine_crc64nvme, 8),
    "CRC32C": (crt.crc32c, crt.combine_crc32c, 4),
}
_READ: Final = 1024 * 1024  #: bytes
ALGORITHMS: Final = (*_CRCS, "MD5")
#: Algorithms whose part checksums join to one of the whole blob, by their names in settings. S3 says FULL_OBJECT.
FULL_OBJECT_ALGORITHMS: Final[Mapping[str, str]] = {name.lower(): name for name in _CRCS}


class Digests:
    """The checksums of bytes that are passed in piece by piece, each by one of ALGORITHMS."""

    def __init__(self, *algorithms: str | None) -> None:
        """None stands for no algorithm."""
        self.size = 0  #: bytes passed in so far
        self._md5 = hashlib.md5(usedforsecurity=False) if "MD5" in algorithms else None
        self._crcs = {name: 0 for name in algorithms if name and name != "MD5"}

    def update(self, piece: bytes | memoryview) -> Self:
        """Add the next bytes."""
        self.size += len(piece)
        if self._md5 is not None:
            self._md5.update(piece)
        for name, value in self._crcs.items():
            self._crcs[name] = _CRCS[name][0](piece, value)
        return self

    def checksum(self, algorithm: str) -> str:
        """``"ALGORITHM:base64"``. Raises KeyError for an algorithm that was not asked for."""
        if algorithm == "MD5":
            return f"MD5:{b64encode(bytes.fromhex(self.md5)).decode()}"
        return _encoded(algorithm, self._crcs[algorithm])

    @property
    def md5(self) -> str:
        """The MD5 in hexadecimal digits: without quotes, what many stores give as the ETag of one piece."""
        if self._md5 is None:
            raise KeyError("MD5")
        return self._md5.hexdigest()


def digests_of(body: Body | FileIO | BytesIO, *algorithms: str | None) -> Digests:
    """The checksums of a body or a file, which is read through and rewound."""
    digests = Digests(*algorithms)
    body.seek(0)
    while piece := body.read(_READ):
        digests.update(piece)
    body.seek(0)
    return digests


def checksum_of(body: Body, algorithm: str) -> str | None:
    """The checksum of a body, which is read through and rewound; None for ``none``."""
    name = algorithm.upper()
    return None if name == "NONE" else digests_of(body, name).checksum(name)


def md5_etag_of(body: Body) -> str:
    """The ETag, without quotes, that many stores give to exactly these bytes. The body is read through and rewound."""
    return digests_of(body, "MD5").md5


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
    return _encoded(name, value) if name else None


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


def _encoded(algorithm: str, value: int) -> str:
    return f"{algorithm}:{b64encode(value.to_bytes(_CRCS[algorithm][2], 'big')).decode()}"
