"""The index: one SQLite database that says which file holds which blob or part. Its commit is what readers see.

A writer holds the lock of ``journal``, so that nobody waits in SQLite's own way, by sleeping. It notes there each file
that it adds or drops, commits, and then removes what the index no longer names: its own, and what killed writers left.
Not earlier: SQLite may still find a killed writer's commit when it recovers, until another one has taken its place.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from io import FileIO
from typing import Final

from blobferry.sql.sqlite_forks import no_fork
from worker.errors import ConfigurationError, StoreUnavailableError
from worker.stores.local.connections import Connections
from worker.stores.local.index_rows import IndexRows
from worker.stores.local.local_files import LocalFiles, link, no_follow
from worker.stores.strict.bucket import File
from worker.units import KIB, MIB

_RESERVE_SIZE: Final = 256 * KIB  #: bytes: dozens of deletions
_SCHEMA: Final = """
    CREATE TABLE blobs (key BLOB PRIMARY KEY, file TEXT, size INTEGER, etag TEXT, checksum TEXT,
                        mod_time TEXT, options TEXT) WITHOUT ROWID;
    CREATE TABLE parts (upload_id TEXT, number INTEGER, key BLOB, file TEXT, size INTEGER, etag TEXT, checksum TEXT,
                        mod_time TEXT, options TEXT, PRIMARY KEY (upload_id, number)) WITHOUT ROWID;
    CREATE INDEX uploads ON parts (key, mod_time) WHERE number = 0;  -- part 0 is the upload itself
    CREATE VIEW files AS SELECT file FROM blobs UNION ALL SELECT file FROM parts;
    PRAGMA user_version = 1;  -- of this layout
"""


class LocalChange(IndexRows):
    """One transaction, with the files that it adds and drops."""

    def __init__(self, db: sqlite3.Connection, files: LocalFiles, journal: FileIO) -> None:
        super().__init__(db)
        self._files = files
        self._journal = journal
        journal.seek(0)
        self._left = set(re.findall(r"\b[0-9a-f]{32}\b", journal.read().decode(errors="replace")))

    def add(self, file: File) -> str:
        """Give a file whose bytes are on the disk a name, which it loses again without a commit."""
        name = secrets.token_hex(16)
        self._note(name)
        link(file, self._files.path, name)
        return name

    def commit(self) -> None:
        """Make the transaction visible, on the disk, and tidy up."""
        self._note(*self.dropped)
        self.db.execute("COMMIT")
        with suppress(OSError, sqlite3.Error):  # what readers see is decided; the next writer tries this again
            if self._left:
                query = "SELECT file FROM files WHERE file IN (SELECT value FROM json_each(?))"
                self._left.difference_update(name for (name,) in self.db.execute(query, (json.dumps([*self._left]),)))
            self._files.remove(self._left | self.dropped)
            if self._journal.tell():
                self._journal.truncate(0)

    def _note(self, *names: str) -> None:
        # A line break on either side: another writer may have been killed in the middle of a name.
        self._files.write(self._journal, "".join(f"\n{name}\n" for name in names).encode())


class LocalIndex:
    """Safe for any number of threads and processes of one host, forked ones too."""

    def __init__(self, root: str, files: LocalFiles) -> None:
        self._root = root
        self._path = os.path.join(root, "index.db")
        self._files = files
        self._connections = Connections(self._path)
        self.close = self._connections.close

    @contextmanager
    def read(self) -> Iterator[IndexRows]:
        """The index as it is; an empty one if nothing was ever stored. Each statement sees one moment of its own."""
        with no_fork():
            if not self._is_there():
                with closing(_new_index()) as db:
                    yield IndexRows(db)
            elif all(os.access(path, os.W_OK, effective_ids=True) for path in (self._root, self._path)):
                with self._connections.lease() as db:
                    yield IndexRows(db)
            else:  # where SQLite cannot make its log, it opens only a file that is said to be immutable
                has_log, before = os.path.exists(self._path + "-wal"), os.stat(self._path).st_mtime_ns
                with closing(self._connections.open("mode=ro" if has_log else "mode=ro&immutable=1")) as db:
                    yield IndexRows(db)
                if not has_log and os.stat(self._path).st_mtime_ns != before:
                    raise StoreUnavailableError(f"local: {self._path!r} was written while it was read: try again")

    @contextmanager
    def write(self, *, is_deletion: bool = False) -> Iterator[LocalChange]:
        """A transaction alone among all threads and processes, committed at the end unless there is an error.

        A deletion may use up the reserve on a full disk, which is filled again once its files are gone.
        """
        os.makedirs(self._root, exist_ok=True)
        with no_fork(), self._open("journal") as journal:
            fcntl.flock(journal, fcntl.LOCK_EX)
            if not self._is_there():
                self._create()
            disk = os.statvfs(self._root)
            if is_deletion and disk.f_bavail * disk.f_frsize < MIB:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._root, "reserve"))
            with self._connections.lease() as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    change = LocalChange(db, self._files, journal)
                    yield change
                    change.commit()
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
            if is_deletion:
                self._keep_reserve()

    def _open(self, name: str) -> FileIO:
        return FileIO(os.path.join(self._root, name), "a+b", opener=no_follow)

    def _is_there(self) -> bool:
        if any(os.path.islink(path) for path in (self._path, self._files.path)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if os.path.exists(self._path):
            return True
        old = [name for name in ("blobs", "uploads", "locks") if os.path.isdir(os.path.join(self._root, name))]
        if "locks" in old and len(old) > 1:
            problem = f"{self._root!r} has the layout of an older Blobferry ({', '.join(old)}), which cannot be read"
            raise ConfigurationError("rootdirectory", f"{problem}: name an empty directory and write the blobs anew")
        if os.path.isdir(self._files.path) and os.listdir(self._files.path):
            raise StoreUnavailableError(f"local: {self._path!r} is missing: restore the directory from a backup")
        return False

    def _create(self) -> None:
        with closing(_new_index()) as db, self._files.unnamed() as file:
            image = bytearray(db.serialize())
            image[18:20] = b"\2\2"  # says WAL. Source: SQLite, "Database File Format", 1.3.3
            self._files.write(file, bytes(image))
            self._files.sync(file)
            os.makedirs(self._files.path, exist_ok=True)
            link(file, self._root, os.path.basename(self._path))
        self._keep_reserve()

    def _keep_reserve(self) -> None:
        with suppress(OSError), self._open("reserve") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE_SIZE)


def _new_index() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.executescript(_SCHEMA)
    return db
