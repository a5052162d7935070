"""Request bodies for botocore, and the reader of a response body."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from worker.errors import StoreUnavailableError
from worker.stores.blob_values import Body
from worker.stores.s3.s3_errors import s3_errors


class RequestBody:
    """A request body that keeps the error its own ``read`` raised.

    botocore and urllib3 wrap that error as a network error; :func:`request_body` raises the original instead.
    Seen with botocore 1.44.5 and urllib3 2.8.0; no upstream report found.
    """

    def __init__(self, body: Body) -> None:
        self.error: Exception | None = None
        self._body = body

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Up to ``size`` bytes of the body; keeps the error that the body raises."""
        try:
            return self._body.read(size)
        except Exception as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move. botocore rewinds before a retry, so an earlier error no longer counts."""
        self.error = None
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        """The position in bytes."""
        return self._body.tell()

    def __len__(self) -> int:
        return len(self._body)


@contextmanager
def request_body(body: Body | bytes) -> Iterator[RequestBody | bytes]:
    """The body, rewound, for one botocore call inside the context. An error of ``body.read`` is raised unchanged."""
    if isinstance(body, bytes):
        yield body
        return
    body.seek(0)  # an earlier call may have read it; the server would wait for the missing bytes
    sent = RequestBody(body)
    try:
        yield sent
    except Exception:
        if sent.error is None:
            raise
    if sent.error is not None:
        raise sent.error


class S3Reader:
    """The bytes of one get: ``size`` of them, or an error. ``stream`` is None for an empty range."""

    def __init__(self, stream: Any, size: int, etag: str, *, bucket: str, key: str) -> None:
        self.etag = etag
        self._stream = stream
        self._left = size
        self._bucket = bucket
        self._key = key

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, or all the rest if it is negative; ``b""`` at the end. Raises StoreUnavailableError."""
        wanted = self._left if size < 0 else min(size, self._left)
        if not wanted:
            return b""
        with s3_errors("read", bucket=self._bucket, key=self._key):
            data: bytes = self._stream.read(wanted)
        self._left -= len(data)
        if len(data) < wanted:
            raise StoreUnavailableError(
                f"s3: {self._key!r} in bucket {self._bucket!r}: the answer broke off {self._left} bytes before its end"
            )
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; return the number of bytes, fewer only at the end. Raises StoreUnavailableError."""
        wanted = min(len(buffer), self._left)
        if not wanted:
            return 0
        with s3_errors("read", bucket=self._bucket, key=self._key):
            count: int = self._stream.readinto(buffer[:wanted])
        self._left -= count
        return count

    def abort(self) -> None:
        """Cut the connection: a read that waits in another thread ends at once."""
        if self._stream is not None:
            with suppress(ValueError, RuntimeError, OSError):  # it was read to its end, or is closed
                self._stream.__enter__().shutdown()  # botocore's body enters as urllib3's response

    def close(self) -> None:
        """Return the connection to the pool, or close it if bytes are unread."""
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
