"""Jobs as values, made before they are submitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, Unpack

from blobferry.jobs.job_options import RequestOptions, StreamRequestOptions, WriteRequestOptions
from blobferry.jobs.option_signatures import with_listed_options
from blobferry.spooling.spooled import Spooled


@with_listed_options
@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is to be submitted, made like a job is by the method of :class:`~blobferry.Client` of the same name.

    It is checked when it is submitted.
    """

    operation: str
    arguments: Mapping[str, Any] = field(repr=False)  #: a source URL may hold a secret

    @classmethod
    def put_content(
        cls, path: str, contents: bytes | bytearray | memoryview, **options: Unpack[WriteRequestOptions]
    ) -> Self:
        """These bytes become the whole blob. At most 1 MiB: the row of the job holds them."""
        return cls("put_content", {"path": path, "contents": contents, **options})

    @classmethod
    def write_stream(
        cls, path: str, source: str | Path | Spooled, offset: int = 0, **options: Unpack[StreamRequestOptions]
    ) -> Self:
        """The source, spooled or as the **worker** sees it, is written to the path, from byte ``offset`` on."""
        return cls("write_stream", {"path": path, "source": file_url(source), "offset": offset, **options})

    @classmethod
    def read_stream(
        cls, path: str, dest: str | Path, offset: int = 0, *, overwrite: bool = True, **options: Unpack[RequestOptions]
    ) -> Self:
        """The blob, from byte ``offset`` on, is written to a file as the **worker** sees it."""
        own = {"path": path, "dest": file_url(dest), "offset": offset, "overwrite": overwrite}
        return cls("read_stream", {**own, **options})

    @classmethod
    def move(
        cls,
        source_path: str,
        dest_path: str,
        *,
        dest_storage: str | None = None,
        overwrite: bool = True,
        **options: Unpack[RequestOptions],
    ) -> Self:
        """The blob is moved, from ``storage`` to ``dest_storage`` if that is given."""
        own = {"source_path": source_path, "dest_path": dest_path, "dest_storage": dest_storage, "overwrite": overwrite}
        return cls("move", {**own, **options})

    @classmethod
    def delete(cls, path: str, **options: Unpack[RequestOptions]) -> Self:
        """The blob and everything under the path are deleted."""
        return cls("delete", {"path": path, **options})


def file_url(file: str | Path | Spooled) -> str:
    """The URL of a file given as a Path or spooled; a URL is returned unchanged."""
    if isinstance(file, Spooled):
        return file.url
    return file.absolute().as_uri() if isinstance(file, Path) else file
