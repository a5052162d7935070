"""Rows of the index, as values, and pages of its keys. Keys are compared by their bytes in UTF-8."""

import base64
import binascii
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, astuple, dataclass
from datetime import datetime
from typing import Final

from worker.errors import InvalidStoreRequestError
from worker.stores.blob_values import BlobOptions, KeyEntry, Page, PartReceipt, UploadEntry
from worker.stores.refusals import key_bytes

_AFTER_ALL: Final = b"\xff"  #: sorts behind all that begins with what precedes it: it is never in UTF-8


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that holds a blob or a part, and what is known of its bytes."""

    name: str
    size: int
    etag: str
    checksums: str  #: ``"ALGORITHM:base64"``, separated by spaces; the one to show first

    def checksum(self, algorithm: str = "") -> str | None:
        """The checksum by an algorithm, or the one to show."""
        return next((checksum for checksum in self.checksums.split() if checksum.startswith(algorithm)), None)

    def receipt(self, part_number: int, algorithm: str = "") -> PartReceipt:
        """As a part, with the checksum by an algorithm, or the one to show."""
        return PartReceipt(part_number, self.size, self.etag, self.checksum(algorithm))


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What is visible under a key."""

    file: StoredFile
    mod_time: datetime
    options: BlobOptions


def find_blob(db: sqlite3.Connection, key: str) -> StoredBlob | None:
    """The blob under a key."""
    row = db.execute("SELECT * FROM blobs WHERE key = ?", (key_bytes("local", key),)).fetchone()
    if row is None:
        return None
    _, *file, mod_time, options = row
    return StoredBlob(StoredFile(*file), datetime.fromisoformat(mod_time), BlobOptions(**json.loads(options)))


def put_blob(db: sqlite3.Connection, key: str, blob: StoredBlob) -> None:
    """Put a blob in place of the one under a key."""
    row = (key_bytes("local", key), *astuple(blob.file), blob.mod_time.isoformat(), _written(blob.options))
    db.execute("REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def delete_blob(db: sqlite3.Connection, key: str) -> None:
    """Leave nothing under a key."""
    db.execute("DELETE FROM blobs WHERE key = ?", (key_bytes("local", key),))


def add_upload(db: sqlite3.Connection, upload: UploadEntry, options: BlobOptions) -> None:
    """Open an upload whose blob is to carry the options."""
    opened_at = upload.opened_at.isoformat() if upload.opened_at else None
    row = (upload.upload_id, key_bytes("local", upload.key), opened_at, _written(options))
    db.execute("INSERT INTO uploads VALUES (?, ?, ?, ?)", row)


def find_upload(db: sqlite3.Connection, key: str, upload_id: str) -> BlobOptions | None:
    """What the blob of an unfinished upload is to carry."""
    query = "SELECT options FROM uploads WHERE id = ? AND key = ?"
    row = db.execute(query, (upload_id, key_bytes("local", key))).fetchone()
    return None if row is None else BlobOptions(**json.loads(row[0]))


def unfinished_uploads(db: sqlite3.Connection, prefix: str) -> list[UploadEntry]:
    """The uploads to keys that begin with the prefix, by key, then by age."""
    start = key_bytes("local", prefix)
    query = "SELECT key, id, opened_at FROM uploads WHERE key >= ? AND key < ? ORDER BY key, opened_at"
    rows = db.execute(query, (start, start + _AFTER_ALL)).fetchall()
    return [UploadEntry(key.decode(), upload_id, datetime.fromisoformat(opened)) for key, upload_id, opened in rows]


def end_upload(db: sqlite3.Connection, upload_id: str) -> set[str]:
    """Forget an upload and its parts. Returns the names of their files."""
    db.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
    return {name for (name,) in db.execute("DELETE FROM parts WHERE upload_id = ? RETURNING file", (upload_id,))}


def find_parts(db: sqlite3.Connection, upload_id: str) -> dict[int, StoredFile]:
    """The parts of an upload by number, in order."""
    rows = db.execute("SELECT * FROM parts WHERE upload_id = ? ORDER BY number", (upload_id,)).fetchall()
    return {number: StoredFile(*file) for _, number, *file in rows}


def put_part(db: sqlite3.Connection, upload_id: str, number: int, part: StoredFile) -> list[str]:
    """Put a part in place of the one with its number, whose file is returned, if there is one."""
    query = "SELECT file FROM parts WHERE upload_id = ? AND number = ?"
    old = db.execute(query, (upload_id, number)).fetchall()
    db.execute("REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", (upload_id, number, *astuple(part)))
    return [name for (name,) in old]


def list_keys(db: sqlite3.Connection, prefix: str, delimiter: str, token: str | None, limit: int) -> Page:
    """One page. Args: those of :meth:`~worker.stores.store.Store.list_page`; ``limit`` counts prefixes too."""
    start, cut = key_bytes("local", prefix), key_bytes("local", delimiter)
    query = "SELECT key, size, mod_time, etag FROM blobs WHERE key >= ? AND key < ? ORDER BY key"
    bound = _decoded(token)
    entries: list[KeyEntry] = []
    prefixes: list[str] = []
    while True:
        with closing(db.execute(query, (max(start, bound + b"\0"), start + _AFTER_ALL))) as rows:
            for key, size, mod_time, etag in rows:
                if len(entries) + len(prefixes) >= limit:
                    return Page(entries, prefixes, base64.urlsafe_b64encode(bound).decode())
                end = key.find(cut, len(start)) if cut else -1
                if end >= 0:
                    prefixes.append(key[: end + len(cut)].decode())
                    bound = key[: end + len(cut)] + _AFTER_ALL
                    break  # the other keys with this prefix need not be looked at
                entries.append(KeyEntry(key.decode(), size, datetime.fromisoformat(mod_time), etag))
                bound = key
            else:
                return Page(entries, prefixes, None)


def _written(options: BlobOptions) -> str:
    """The options as JSON, without those that are not set: an older worker may not know them."""
    return json.dumps({name: value for name, value in asdict(options).items() if value not in (None, {})})


def _decoded(token: str | None) -> bytes:
    try:
        return base64.b64decode(token or "", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidStoreRequestError(f"local: {token!r} is no token of a listing") from error
