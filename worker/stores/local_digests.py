"""Checksums and ETags of bytes: of those that pass by, of a file's, and of a whole out of its parts'."""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from awscrt import checksums as crt

from worker.errors import ChecksumMismatchError, InvalidStoreRequestError, StoreUnavailableError
from worker.units import KIB

_STEP: Final = 64 * KIB  #: bytes; as many threads as a copy has each hold one
_CRCS: Final = {"CRC64NVME": (crt.crc64nvme, crt.combine_crc64nvme, 8), "CRC32C": (crt.crc32c, crt.combine_crc32c, 4)}
KEPT: Final = {name.lower(): name for name in _CRCS}  #: what a store may be configured to keep of every blob


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes in a file that nobody else can see yet."""

    file: int
    size: int
    etag: str
    checksums: dict[str, str]  #: ``"ALGORITHM:base64"`` by algorithm; the one to show first


class Digests:
    """The MD5 and the wanted checksums of bytes that pass by."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crcs = {name: 0 for name in algorithms if name in _CRCS}

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next bytes."""
        self.size += len(piece)
        self._md5.update(piece)
        for name, value in self._crcs.items():
            self._crcs[name] = _CRCS[name][0](piece, value)

    @property
    def etag(self) -> str:
        """The quoted MD5, as S3 gives it to what came in one piece."""
        return f'"{self._md5.hexdigest()}"'

    def checksum(self, algorithm: str) -> str:
        """``"ALGORITHM:base64"``."""
        if algorithm == "MD5":
            return _encoded("MD5", self._md5.digest())
        return _encoded(algorithm, self._crcs[algorithm].to_bytes(_CRCS[algorithm][2], "big"))

    def staged(self, file: int, algorithms: Iterable[str]) -> Staged:
        """What was digested, as the content of the file."""
        return Staged(file, self.size, self.etag, {name: self.checksum(name) for name in algorithms})


def algorithms(*checksums: str | None) -> list[str]:
    """The algorithms of checksums, each once. Raises InvalidStoreRequestError for one that is not known."""
    names = list(dict.fromkeys(checksum.partition(":")[0] for checksum in checksums if checksum is not None))
    for name in names:
        if name not in _CRCS and name != "MD5":
            raise InvalidStoreRequestError(f"local: unknown checksum algorithm {name!r}")
    return names


def digest_file(file: int, size: int, digests: Digests) -> Digests:
    """Digest the first bytes of a file."""
    while digests.size < size:
        piece = os.pread(file, min(_STEP, size - digests.size), digests.size)
        if not piece:
            raise StoreUnavailableError(f"local: a file ends at {digests.size} instead of {size}")
        digests.update(piece)
    return digests


def check_checksum(found: Mapping[str, str], wanted: str | None, key: str) -> None:
    """Refuse bytes other than those that the checksum was made of, if one of its algorithm was found."""
    if wanted is not None and found.get(wanted.partition(":")[0], wanted) != wanted:
        raise ChecksumMismatchError(f"local: {key!r} has the checksum {found[wanted.partition(':')[0]]}, not {wanted}")


def join_checksums(names: Iterable[str], parts: Sequence[tuple[Mapping[str, str], int]]) -> dict[str, str]:
    """The CRCs of all parts in a row, out of each one's own and its size: of those algorithms that all of them have."""
    return {name: _joined(name, parts) for name in names if name in _CRCS and all(name in part for part, _ in parts)}


def _joined(name: str, parts: Sequence[tuple[Mapping[str, str], int]]) -> str:
    _, combine, width = _CRCS[name]
    whole = 0
    for checksums, size in parts:
        value = int.from_bytes(base64.b64decode(checksums[name].partition(":")[2]), "big")
        whole = combine(whole, value, size)
    return _encoded(name, whole.to_bytes(width, "big"))


def etag_of_parts(etags: Sequence[str]) -> str:
    """The quoted MD5 of the parts' MD5s, and their number, as S3 gives it to what came in parts."""
    digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    return f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"'


def _encoded(algorithm: str, digest: bytes) -> str:
    return f"{algorithm}:{base64.b64encode(digest).decode()}"
