"""The files of a storage as the store has them: every answer is a worker's, within bounded time."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from blobferry.checks.arguments import MAX_CHILDREN, MAX_CONTENT
from blobferry.django.ferries import Ferry
from blobferry.errors import PathNotFoundError, UnreachableError
from blobferry.values import FileInfo

_IN_MEMORY: Final = 4 * 1024 * 1024  #: bytes of a download; the rest is in a temporary file


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """Reads of one storage. Raise UnreachableError if no worker answers, and the errors of the store.

    In tests, which reach no store, nothing is there.
    """

    ferry: Ferry
    storage: str
    timeout: float  #: seconds
    expiry: int  #: seconds for which a signed URL is good

    def info(self, path: str) -> FileInfo | None:
        """The blob or directory at the path; None if there is none."""
        if self.ferry.is_quiet:
            return None
        try:
            return self.ferry.stat(path, storage=self.storage, timeout=self.timeout)
        except PathNotFoundError:
            return None

    def open(self, path: str, size: int) -> IO[bytes]:
        """The blob's bytes, all of them here before it returns. ``size``: bytes, about. Raises FileNotFoundError."""
        if size > MAX_CONTENT:
            return self._download(path)
        try:
            return BytesIO(self.ferry.get_content(path, storage=self.storage, timeout=self.timeout))
        except PathNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, str(error), path) from error

    def url(self, path: str) -> str:
        """A signed URL."""
        return self.ferry.url_for(path, {"expiry": self.expiry}, storage=self.storage, timeout=self.timeout)

    def names(self, path: str) -> Iterator[str]:
        """The paths of all blobs below the directory, relative to it; none if it does not exist."""
        after, above = None, path.rstrip("/") + "/"
        while not self.ferry.is_quiet:
            asked: dict[str, Any] = {"storage": self.storage, "timeout": self.timeout, "after": after}
            try:
                found = self.ferry.list(path, recursive=True, limit=MAX_CHILDREN, **asked)
            except PathNotFoundError:
                return
            yield from (each.removeprefix(above) for each in found)
            if len(found) < MAX_CHILDREN:
                return
            after = found[-1]

    def _download(self, path: str) -> IO[bytes]:
        target = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the caller closes it
        try:
            with urlopen(self.url(path), timeout=self.timeout) as answer:
                shutil.copyfileobj(answer, target)
        except (URLError, TimeoutError) as error:
            target.close()
            raise UnreachableError(f"{path} cannot be read from the store by its signed URL: {error}") from error
        target.seek(0)
        return target
