"""Rows of the index, as values. Keys are compared by their bytes in UTF-8."""

import json
import sqlite3
import sys
from collections.abc import Generator
from dataclasses import asdict
from datetime import datetime
from typing import NamedTuple

from worker.stores.blob_values import BlobOptions, KeyEntry, Page, PartReceipt, UploadEntry
from worker.stores.listing import AFTER_ALL, page_of
from worker.stores.local.index import Change
from worker.stores.refusals import key_bytes, upload_not_found


class Record(NamedTuple):
    """A blob, a part of an upload, or as part 0 the upload itself."""

    file: str = ""  #: the name of the file that holds its bytes
    size: int = 0
    etag: str = ""
    checksum: str | None = None  #: "ALGORITHM:base64" of all bytes, if one is kept
    mod_time: str = ""  #: in ISO 8601, UTC; of an upload: when it was opened
    options: str = ""  #: what the blob carries, in JSON; of an upload: what its blob will carry

    def receipt(self, part_number: int) -> PartReceipt:
        """As a part."""
        return PartReceipt(part_number, self.size, self.etag, self.checksum)

    def blob_options(self) -> BlobOptions:
        """What the blob carries."""
        return BlobOptions(**json.loads(self.options))


def json_of(options: BlobOptions) -> str:
    """Options as a record has them."""
    return json.dumps(asdict(options))


def find_blob(db: sqlite3.Connection, key: str) -> Record | None:
    """The blob under a key."""
    row = db.execute("SELECT * FROM blobs WHERE key = ?", (key_bytes("local", key),)).fetchone()
    return None if row is None else Record(*row[1:])


def put_blob(change: Change, key: str, blob: Record) -> None:
    """Put a blob in place of the one under a key."""
    delete_blob(change, key)
    change.db.execute("INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?)", (key_bytes("local", key), *blob))


def delete_blob(change: Change, key: str) -> None:
    """Leave nothing under a key."""
    change.delete("blobs WHERE key = ?", key_bytes("local", key))


def find_parts(
    db: sqlite3.Connection, key: str, upload_id: str, *, last: int = sys.maxsize
) -> tuple[Record, dict[int, Record]]:
    """An unfinished upload and its parts up to number ``last``, of one moment. Raises UploadNotFoundError."""
    query = "SELECT * FROM parts WHERE upload_id = ? AND key = ? AND number <= ? ORDER BY number"
    rows = db.execute(query, (upload_id, key_bytes("local", key), last)).fetchall()
    held = {number: Record(*record) for _, number, _, *record in rows}
    if 0 not in held:
        raise upload_not_found("local", key, upload_id)
    return held.pop(0), held


def put_part(change: Change, key: str, upload_id: str, number: int, part: Record) -> None:
    """Put a part in place of the one with its number; with 0, open an upload."""
    change.delete("parts WHERE upload_id = ? AND number = ?", upload_id, number)
    row = (upload_id, number, key_bytes("local", key), *part)
    change.db.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def end_upload(change: Change, upload_id: str) -> None:
    """Forget an upload and its parts."""
    change.delete("parts WHERE upload_id = ?", upload_id)


def list_uploads(db: sqlite3.Connection, prefix: str) -> list[UploadEntry]:
    """The uploads to keys that begin with the prefix, by key, then by age."""
    first = key_bytes("local", prefix)
    query = """SELECT key, upload_id, mod_time FROM parts
               WHERE number = 0 AND key >= ? AND key < ? ORDER BY key, mod_time"""
    rows = db.execute(query, (first, first + AFTER_ALL)).fetchall()
    return [UploadEntry(key.decode(), upload_id, datetime.fromisoformat(opened)) for key, upload_id, opened in rows]


def list_keys(db: sqlite3.Connection, prefix: str, delimiter: str, token: str | None, limit: int) -> Page:
    """One page. Args: those of :meth:`~worker.stores.store.Store.list_page`."""
    first = key_bytes("local", prefix)
    query = "SELECT key, size, mod_time, etag FROM blobs WHERE key >= ? AND key < ? ORDER BY key"

    def entries_from(start: bytes) -> Generator[KeyEntry]:
        for key, size, mod_time, etag in db.execute(query, (max(first, start), first + AFTER_ALL)):
            yield KeyEntry(key.decode(), size, datetime.fromisoformat(mod_time), etag)

    return page_of(entries_from, prefix, delimiter, token, limit)
