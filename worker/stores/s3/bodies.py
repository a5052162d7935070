"""What goes into botocore and what comes out of it as a stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from worker.errors import StoreUnavailableError
from worker.stores.s3.s3_errors import s3_errors
from worker.stores.store import Body


class SentBody:
    """A body on its way out, which remembers the error of its own ``read``.

    botocore and urllib3 take an error of the source for one of the network; here the two stay apart.
    Seen with botocore 1.44.5 and urllib3 2.8.0; no upstream report found.
    """

    def __init__(self, body: Body) -> None:
        self.error: Exception | None = None
        self._body = body

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Read from the source."""
        try:
            return self._body.read(size)
        except Exception as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go back, for a retry, which gives the source another chance."""
        self.error = None
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        """The position in the source."""
        return self._body.tell()

    def __len__(self) -> int:
        return len(self._body)


@contextmanager
def sending(body: Body | bytes) -> Iterator[SentBody | bytes]:
    """The body as botocore takes it; an error of the body's own ``read`` comes out as it was raised."""
    if isinstance(body, bytes):
        yield body
        return
    body.seek(0)  # an earlier call may have sent it: the server would wait for bytes that never come
    sent = SentBody(body)
    try:
        yield sent
    except Exception:
        if sent.error is None:
            raise
    if sent.error is not None:
        raise sent.error


class S3Reader:
    """The bytes of one get. Never ends early without an error. Without a stream there is nothing to read."""

    def __init__(self, stream: Any, size: int, etag: str, *, bucket: str, key: str) -> None:
        self.etag = etag
        self._stream = stream
        self._left = size
        self._bucket = bucket
        self._key = key

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, all that is left without one; ``b""`` at the end."""
        wanted = self._left if size < 0 else min(size, self._left)
        if not wanted:
            return b""
        with s3_errors("read", bucket=self._bucket, key=self._key):
            data: bytes = self._stream.read(wanted)
        self._left -= len(data)
        if len(data) < wanted:
            raise StoreUnavailableError(
                f"s3: {self._key!r} in bucket {self._bucket!r} ended {self._left} bytes before its end"
            )
        return data

    def close(self) -> None:
        """Give the connection back, or close it if bytes are left."""
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
