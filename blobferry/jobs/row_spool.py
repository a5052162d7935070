"""A spool of rows that are to be inserted together: in memory while they are few, then in a temporary file."""

import pickle
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Final, Self

from blobferry.jobs.job_rows import NewRow

MOST_ROWS: Final = 1000  #: of a chunk, which becomes one INSERT
MOST_BYTES: Final = 4 * 1024 * 1024  #: of the contents of a chunk, about
IN_MEMORY: Final = 8 * 1024 * 1024  #: bytes of the spool; what goes beyond it is in a file
_OF_A_ROW: Final = 512  #: bytes, contents aside, about


class RowSpool:
    """Rows in chunks, in order. The file has no name, is nobody else's to read, and ends with the process."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed on the way out
        self._last: list[NewRow] = []  #: the chunk that is being filled
        self._bytes = 0
        self._full_chunks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, row: NewRow) -> None:
        """Add a row at the end."""
        self._last.append(row)
        self._bytes += _OF_A_ROW + len(row["contents"] or b"")
        if len(self._last) == MOST_ROWS or self._bytes >= MOST_BYTES:
            pickle.dump(self._last, self._file, pickle.HIGHEST_PROTOCOL)
            self._full_chunks += 1
            self._last, self._bytes = [], 0

    def chunks(self) -> Iterator[list[NewRow]]:
        """All rows, from the first on."""
        self._file.seek(0)
        for _ in range(self._full_chunks):
            yield pickle.load(self._file)
        if self._last:
            yield self._last
