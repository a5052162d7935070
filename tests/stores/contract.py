"""The contract suite's table of deviations, and what its tests share.

The suite runs on memory, on a directory, and on S3 as moto and OpenStack Swift serve it. Where a server cannot honour
a line of the contract, DEVIATIONS says so by name, and the test asserts what that server really does instead: a server
that learns better makes the test fail.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from awscrt import checksums

from worker.errors import StoreError
from worker.stores.blob_values import Page
from worker.stores.store import Store
from worker.units import MIB

DEVIATIONS: dict[str, dict[str, str]] = {
    "moto": {
        "checksums are compared": "stores what it is sent, whatever Content-MD5 or x-amz-checksum-* say",
        "copies obey conditions": "ignores If-Match, If-None-Match and x-amz-copy-source-if-match on copies",
        "completion obeys If-Match": "ignores it",
        "an upload belongs to its key": "finds an upload by its id alone",
        "unknown uploads are refused": "answers HTTP 500 to a part or a completion of an upload that it lacks",
        "completed uploads are gone": "completes a second time, and says 200",
        "part 0 is refused as such": "answers NoSuchUpload",
        "part order is checked": "answers EntityTooSmall, since the last part in the list is not the last of the blob",
        "a missing part source is told": "answers 404 without a code",
        "ranges of part sources are checked": "copies what there is, and fewer bytes than asked",
        "long keys are refused": "stores them",
        "signatures are checked": "needs none",
    },
    "swift": {
        "If-Match on writes": "answers 501 to If-Match on put, copy and complete",
        "a copy may create": "answers 412 to If-None-Match on a copy even where nothing is",
        "tags": "answers 501",
        "completed uploads are gone": "completes a second time, and says 200",
        "parts are gone after completion": "lists them still",
        "a late part leaves the blob alone": "takes it, and the blob that it belonged to is broken: GET answers 409",
        "checksums of the whole are compared": "ignores them at completion",
        "long keys are stored": "a key's metadata must fit into a file's extended attributes: 4 KiB in all on ext4; "
        "asking for more takes the disk out of service for a minute",
        "ranges of part sources are checked": "copies what there is, and fewer bytes than asked",
    },
}

Deviates = Callable[[str], bool]
"""Whether the server at hand cannot honour a line of the contract."""

FIRST = os.urandom(5 * MIB)  # as small as a part may be that is not the last
LAST = b"the last part may be small"
ODD_NAMES = ("a b", "a+b", "a%20b", "ü", "a&b", "<x>", "a'b", 'a"b', "a=b", "a?b#c", "a;b,c", "~a!b*c(d)")
ALGORITHMS = ("CRC64NVME", "CRC32C", "MD5")


def md5_etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def checksum(algorithm: str, data: bytes) -> str:
    digests: dict[str, Callable[[], bytes]] = {
        "CRC64NVME": lambda: checksums.crc64nvme(data).to_bytes(8, "big"),
        "CRC32C": lambda: checksums.crc32c(data).to_bytes(4, "big"),
        "MD5": lambda: hashlib.md5(data).digest(),
    }
    digest = digests[algorithm]()
    return f"{algorithm}:{base64.b64encode(digest).decode()}"


def keys(store: Store, prefix: str) -> list[str]:
    return [entry.key for entry in store.list_page(prefix).entries]


def pages(store: Store, prefix: str = "", **arguments: Any) -> Iterator[Page]:
    """All pages of a listing."""
    token = None
    while True:
        page = store.list_page(prefix, token=token, **arguments)
        yield page
        token = page.next_token
        if token is None:
            return


def error_of(call: Callable[..., object], *args: Any, **keywords: Any) -> type[StoreError] | None:
    """The error that refuses the call; None: it is done."""
    try:
        call(*args, **keywords)
    except StoreError as error:
        return type(error)
    return None
