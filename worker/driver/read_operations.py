"""The operations that change nothing, and the way from paths to keys."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

from blobferry.checks.arguments import MAX_KEY_BYTES, check_path
from blobferry.values import FileInfo
from worker.driver.blob_reader import open_reader
from worker.driver.directories import children, is_directory
from worker.driver.signed_urls import sign
from worker.errors import InvalidOffsetError, InvalidPathError, KeyNotFoundError, PathNotFoundError
from worker.stores.blob_values import BlobHead, UploadEntry
from worker.stores.store import Store
from worker.transfer.visible import look


class Reads:
    """A store below a root directory, for whoever only looks."""

    def __init__(self, store: Store, *, root: str = "") -> None:
        self.store = store
        self.root = root.strip("/")  #: "" is the whole store

    # --- reading -----------------------------------------------------------------------------------------------------

    def get_content(self, path: str) -> bytes:
        """All bytes of the blob, of one version of it."""
        with self.read_stream(path) as stream:
            return stream.read()

    def read_stream(self, path: str, offset: int = 0) -> BufferedReader:
        """The blob's bytes from ``offset``, to be closed; none at or past the end.

        Tied to the version that is there at the call: reading raises SourceChangedError once that is replaced. A
        connection that drops is made again at the byte it had reached. Never ends early without an error.
        """
        key = self.key(path)
        if offset < 0:
            raise InvalidOffsetError(path, offset, self.store.name)
        with self._not_found(path):
            return open_reader(self.store, key, offset, path)

    def stat(self, path: str) -> FileInfo:
        """What is at the path: the blob, else the directory. ``/`` is one."""
        key = self._directory(path).removesuffix("/")
        head = look(self.store, key) if path != "/" else None
        if head is not None:
            return FileInfo(path, head.size, head.mod_time, is_dir=False)
        if is_directory(self.store, self._directory(path)) or path == "/":
            return FileInfo(path, 0, None, is_dir=True)
        raise PathNotFoundError(path, self.store.name)

    def list(self, path: str) -> list[str]:
        """The paths of the directory's direct children, once each, in byte order. ``/`` may have none."""
        found = children(self.store, self._directory(path), path)
        if found is None and path != "/":
            raise PathNotFoundError(path, self.store.name)
        return found or []

    def url_for(self, path: str, options: Mapping[str, Any] | None = None) -> str:
        """A URL that allows anybody to GET or HEAD the path. Sends no request; whether a blob is there is not asked.

        Options: ``method``, "GET" by default, or "HEAD"; ``expiry``, an aware datetime, in 20 minutes by default and
        in 7 days at most. The URL dies with temporary credentials that signed it, if these end earlier. Raises
        UnsupportedMethodError, also where blobs have no URLs; InvalidRequestError.
        """
        return sign(self.store, self.key(path), path, options or {})

    # --- looking -----------------------------------------------------------------------------------------------------

    def look(self, path: str) -> BlobHead | None:
        """What readers see at the path, with ETag, checksum and metadata; None for nothing."""
        return look(self.store, self.key(path))

    def head(self, path: str) -> BlobHead:
        """The same for a blob that has to be there. Raises PathNotFoundError."""
        head = self.look(path)
        if head is None:
            self.store.list_page(self.key(path), limit=1)  # an answer to HEAD does not tell that the bucket is missing
            raise PathNotFoundError(path, self.store.name)
        return head

    def unfinished_uploads(self, path: str) -> Sequence[UploadEntry]:
        """Multipart uploads that the store says are open at exactly this path."""
        key = self.key(path)
        return [entry for entry in self.store.list_uploads(key) if entry.key == key]

    def key(self, path: str) -> str:
        """The key of a path, below the root directory. Raises InvalidPathError."""
        try:
            key = "/".join(filter(None, (self.root, check_path(path)[1:])))
        except InvalidPathError as error:
            raise InvalidPathError(error.path, self.store.name) from None
        if len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidPathError(path, self.store.name)
        return key

    # --- shared parts ------------------------------------------------------------------------------------------------

    def _directory(self, path: str) -> str:
        """The prefix of all keys below a path."""
        if path == "/":
            return f"{self.root}/" if self.root else ""
        return self.key(path) + "/"

    @contextmanager
    def _not_found(self, path: str) -> Iterator[None]:
        try:
            yield
        except KeyNotFoundError as error:
            raise PathNotFoundError(path, self.store.name) from error
