"""Rows of the index, as records. Keys are compared by their bytes in UTF-8."""

import json
import sqlite3
from collections.abc import Generator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from worker.stores.blob_values import BlobOptions, KeyEntry, Page, UploadEntry
from worker.stores.strict.bucket import ALL_PARTS, Record
from worker.stores.strict.listing import AFTER_ALL, page_of
from worker.stores.strict.refusals import key_bytes, upload_not_found


class IndexRows:
    """What a connection finds in the index; in a transaction, it may change that."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.dropped: set[str] = set()  #: the files of rows that are gone

    def find_blob(self, key: str) -> Record | None:
        row = self.db.execute("SELECT * FROM blobs WHERE key = ?", (_bytes(key),)).fetchone()
        return None if row is None else _record(*row[1:])

    def put_blob(self, key: str, blob: Record) -> None:
        self.delete_blob(key)
        self.db.execute("INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?)", (_bytes(key), *_columns(blob)))

    def delete_blob(self, key: str) -> None:
        self._delete("DELETE FROM blobs WHERE key = ? RETURNING file", _bytes(key))

    def find_parts(self, key: str, upload_id: str, last: int = ALL_PARTS) -> tuple[Record, dict[int, Record]]:
        query = "SELECT * FROM parts WHERE upload_id = ? AND key = ? AND number <= ? ORDER BY number"
        rows = self.db.execute(query, (upload_id, _bytes(key), last)).fetchall()
        held = {number: _record(*columns) for _, number, _, *columns in rows}
        if 0 not in held:
            raise upload_not_found("local", key, upload_id)
        return held.pop(0), held

    def put_part(self, key: str, upload_id: str, number: int, part: Record) -> None:
        self._delete("DELETE FROM parts WHERE upload_id = ? AND number = ? RETURNING file", upload_id, number)
        row = (upload_id, number, _bytes(key), *_columns(part))
        self.db.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def end_upload(self, upload_id: str) -> None:
        self._delete("DELETE FROM parts WHERE upload_id = ? RETURNING file", upload_id)

    def list_uploads(self, prefix: str) -> list[UploadEntry]:
        first = _bytes(prefix)
        query = """SELECT key, upload_id, mod_time FROM parts
                   WHERE number = 0 AND key >= ? AND key < ? ORDER BY key, mod_time"""
        rows = self.db.execute(query, (first, first + AFTER_ALL)).fetchall()
        return [UploadEntry(key.decode(), upload_id, datetime.fromisoformat(opened)) for key, upload_id, opened in rows]

    def list_keys(self, prefix: str, delimiter: str, token: str | None, limit: int) -> Page:
        first = _bytes(prefix)
        query = "SELECT key, size, mod_time, etag FROM blobs WHERE key >= ? AND key < ? ORDER BY key"

        def entries_from(start: bytes) -> Generator[KeyEntry]:
            for key, size, mod_time, etag in self.db.execute(query, (max(first, start), first + AFTER_ALL)):
                yield KeyEntry(key.decode(), size, datetime.fromisoformat(mod_time), etag)

        return page_of(entries_from, prefix, delimiter, token, limit)

    def _delete(self, statement: str, *values: object) -> None:
        self.dropped.update(name for (name,) in self.db.execute(statement, values) if name)


def _bytes(key: str) -> bytes:
    return key_bytes("local", key)


def _record(file: str, size: int, etag: str, checksum: str | None, mod_time: str, options: str) -> Record:
    return Record(file, size, etag, checksum, datetime.fromisoformat(mod_time), BlobOptions(**json.loads(options)))


def _columns(record: Record) -> tuple[Any, ...]:
    options = {name: value for name, value in asdict(record.options).items() if value}
    return (*record[:4], record.mod_time.isoformat(), json.dumps(options))
