"""write_stream and put_content: write a source, or the bytes of the request, to a path."""

from typing import Any

from blobferry.contract import REPLACED_SOURCE
from blobferry.jobs.put_contents import contents_of
from worker.errors import SourceChangedError, SourceError
from worker.jobs.operations.operation import JobResult, TransferOperation, result_of
from worker.stores.blob_values import BlobOptions
from worker.transfer.sources.http.http_source import NoRangesError, OtherVersionError
from worker.transfer.sources.http.spooled_source import SpooledSource
from worker.transfer.sources.patience import waited_for
from worker.transfer.sources.source import Source
from worker.transfer.sources.spooled_file import SpooledFile


class WriteStream(TransferOperation):
    """Writes a source to a path."""

    def execute(self) -> None:
        """Transfer the source, unless an earlier run has done so."""
        path = self._request["path"]
        if self._is_committed(self._driver, path):  # before the source is opened, which may be gone
            return
        try:
            self._write(path)
        except SourceError as error:  # a retry named another source: if that is the wrong one, the next may be right
            error.resumable |= REPLACED_SOURCE in (self._job.source_fingerprint or {})
            raise

    def _write(self, path: str) -> None:
        url = self._request["source"]
        if self._job.removes_source:
            watch = self._runtime.patience(self._stop).watch(str(self._job.source))
            waited_for(lambda: self._runtime.refuse_unremovable(url), watch)
        source = self._runtime.open_source(url, self._stop)
        try:
            self._write_from(source, path)
        except NoRangesError:
            pass  # it has ranges for the first byte only, or for some of its requests
        except OtherVersionError as error:
            # Otherwise nothing would tell another version from another server.
            if not (error.of_several or self._has_sent_parts()):
                raise SourceChangedError(str(error)) from error
        else:
            return
        self._write_from(self._runtime.open_source(url, self._stop, whole_size=source.size), path)

    def _write_from(self, source: Source, path: str) -> None:
        self.is_sliced = not isinstance(source, SpooledSource | SpooledFile)  # a new slice would fetch all of it again
        try:
            self._driver.write_stream(path, self._request.get("offset", 0), source, **self._how())
        finally:
            source.close()

    def _has_sent_parts(self) -> bool:
        upload = self._checkpoint.load()
        return upload is not None and any(number > upload.prefix_parts for number in upload.parts)

    def verify(self) -> JobResult:
        """The result, once readers see the blob."""
        return result_of(self._request["path"], self._visible(self._driver, self._request["path"]))

    def _how(self) -> dict[str, Any]:
        return {
            "overwrite": self._request.get("overwrite", True),
            "options": BlobOptions(self._request.get("content_type"), self._request.get("metadata") or {}),
            "checkpoint": self._checkpoint,
            "stop": self._stop,
        }


class PutContent(WriteStream):
    """Writes the bytes of the request to a path."""

    def execute(self) -> None:
        """Put the bytes, unless an earlier run has done so."""
        contents = contents_of(self._job.contents, self._request)
        assert contents is not None, "the row of a put_content has its bytes"
        self._driver.put_content(self._request["path"], contents, **self._how())
