"""What tests do with buckets in a directory, also in processes of their own."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from awscrt import checksums

from worker.stores.blob_values import BlobOptions, Limits, PartReceipt
from worker.stores.store import Store

FREE = Limits(min_part_size=1)
OLD, NEW = b"old bytes", b"NEW"


def content(store: Store, key: str) -> bytes:
    with store.get(key) as reader:
        return reader.read()


def crc64(data: bytes) -> str:
    return f"CRC64NVME:{base64.b64encode(checksums.crc64nvme(data).to_bytes(8, 'big')).decode()}"


def all_keys(store: Store, **arguments: Any) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        page = store.list_page(arguments.get("prefix", ""), token=token, limit=arguments.get("limit", 1_000))
        found += [entry.key for entry in page.entries]
        token = page.next_token
        if token is None:
            return found


def files(path: Path) -> list[str]:
    """The files of blobs and parts in the directory."""
    return sorted(str(file.relative_to(path)) for file in path.glob("files/*"))


def upload(store: Store, key: str, *pieces: bytes) -> tuple[str, list[PartReceipt]]:
    upload_id = store.create_upload(key, options=BlobOptions(metadata={"made": "in parts"}))
    return upload_id, [store.upload_part(key, upload_id, number, piece) for number, piece in enumerate(pieces, 1)]


def in_child(run: Callable[[], object]) -> int:
    """Run it in a forked child; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        run()
        code = 0
    finally:
        os._exit(code)


def status(pid: int) -> int:
    """The exit code of a child, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
