"""Checksums: known values, and the whole joined from its parts is the whole read at once."""

import hashlib
from base64 import b64decode, b64encode
from io import BytesIO
from itertools import pairwise

import pytest
from awscrt import checksums as crt
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles import BytesSource
from worker.stores.blob_values import Body
from worker.stores.checksums import checksum_of, join_checksums, md5_etag_of, multipart_etag
from worker.transfer.body import PartBody
from worker.transfer.plan import PartRange

# The check value of each algorithm, of b"123456789". Source: the catalogue of parametrised CRC algorithms; RFC 1321.
CHECK = b"123456789"
KNOWN = {
    "crc64nvme": "CRC64NVME:" + b64encode(bytes.fromhex("ae8b14860a799888")).decode(),
    "crc32c": "CRC32C:" + b64encode(bytes.fromhex("e3069283")).decode(),
    "md5": "MD5:" + b64encode(bytes.fromhex("25f9e794323b453885f5181f1b624d0b")).decode(),
}


def body(data: bytes, window: int = 4) -> PartBody:
    return PartBody(BytesSource(data), PartRange(1, 0, len(data)), memoryview(bytearray(window)))


class File(BytesIO):
    """Any seekable file with a length is a body, not a part only."""

    def __len__(self) -> int:
        return len(self.getvalue())


@pytest.mark.parametrize("algorithm", KNOWN)
@pytest.mark.parametrize("read", [body(CHECK, 1), body(CHECK, 4), body(CHECK, 100), File(CHECK)])
def test_a_checksum_is_the_known_one_whatever_the_body_and_its_window(algorithm: str, read: Body) -> None:
    assert checksum_of(read, algorithm) == KNOWN[algorithm]
    assert read.tell() == 0  # rewound, ready to be sent


def test_without_an_algorithm_there_is_no_checksum() -> None:
    assert checksum_of(body(CHECK), "none") is None


def test_the_etag_of_one_piece_is_its_md5() -> None:
    assert md5_etag_of(body(CHECK)) == "25f9e794323b453885f5181f1b624d0b"


@pytest.mark.parametrize("algorithm", ["crc64nvme", "crc32c"])
@given(data=st.binary(min_size=1, max_size=400), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_parts_join_to_the_checksum_of_the_whole(algorithm: str, data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]  # some of them empty
    parts = [(checksum_of(body(piece), algorithm), len(piece)) for piece in pieces]
    assert join_checksums(parts) == checksum_of(body(data), algorithm)


def test_a_joined_checksum_tells_the_order_of_the_parts() -> None:
    first, second = (checksum_of(body(data), "crc64nvme") for data in (b"one", b"two"))
    assert join_checksums([(first, 3), (second, 3)]) != join_checksums([(second, 3), (first, 3)])


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [(None, 3)],
        [(KNOWN["md5"], 9)],
        [(KNOWN["crc32c"], 9), (None, 3)],
        [(None, 3), (KNOWN["crc32c"], 9)],
        [(KNOWN["crc32c"], 9), (KNOWN["crc64nvme"], 9)],
        [("SHA256:" + b64encode(bytes(32)).decode(), 9)],
    ],
)
def test_what_cannot_be_joined_is_no_checksum_at_all(parts: list[tuple[str | None, int]]) -> None:
    assert join_checksums(parts) is None


def test_the_joined_checksum_of_a_large_blob_needs_no_bytes() -> None:
    """48.8 TiB of 5 GiB parts: as fast as any other, because sizes are only numbers."""
    part = (KNOWN["crc64nvme"], 5 * 1024**3)
    joined = join_checksums([part] * 10_000)
    assert joined is not None
    value = int.from_bytes(b64decode(KNOWN["crc64nvme"].partition(":")[2]), "big")
    expected = value
    for _ in range(9_999):
        expected = crt.combine_crc64nvme(expected, value, 5 * 1024**3)
    assert int.from_bytes(b64decode(joined.partition(":")[2]), "big") == expected


def test_a_multipart_etag_is_the_md5_of_the_md5s_and_their_number() -> None:
    digests = [hashlib.md5(piece).digest() for piece in (b"one", b"two", b"three")]
    expected = f"{hashlib.md5(b''.join(digests)).hexdigest()}-3"
    assert multipart_etag(digest.hex() for digest in digests) == expected
    assert multipart_etag(f'"{digest.hex()}"' for digest in digests) == expected


@pytest.mark.parametrize("etags", [[], ["no-hex"], ["abcd"], [hashlib.md5(b"one").hexdigest(), '"opaque-1"']])
def test_etags_that_are_no_md5s_give_no_multipart_etag(etags: list[str]) -> None:
    assert multipart_etag(etags) is None
