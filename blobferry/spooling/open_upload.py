"""What ``spool`` takes: uploads as frameworks have them, open files, paths."""

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from blobferry.errors import InvalidRequestError
from blobferry.redaction import short_repr

_NEEDS: Final = "an open binary file, an UploadFile, Django's UploadedFile or the path of a file"


@runtime_checkable
class Readable(Protocol):
    """A binary file that is open for reading, also one with ``await``-ed methods around another in ``file``."""

    def read(self, size: int = ..., /) -> Any:
        """At most so many bytes; none at the end."""
        ...


Upload = Readable | os.PathLike[str] | str


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload, ready to be read or renamed."""

    file: Any  #: binary, at its beginning if it can seek; None: ``path`` has all bytes
    path: Path | None  #: a file with a name that holds the upload
    is_temporary: bool  #: whether it may be renamed: its framework would remove it anyway
    size: int | None  #: as the framework says


def open_upload(upload: Any) -> OpenUpload:
    """Find out what the upload is. Raises InvalidRequestError."""
    if isinstance(upload, str | os.PathLike):
        return OpenUpload(None, Path(os.path.abspath(upload)), False, None)
    size = getattr(upload, "size", None)
    size = size if isinstance(size, int) and not isinstance(size, bool) else None
    if callable(temporary_path := getattr(upload, "temporary_file_path", None)):  # Django's TemporaryUploadedFile
        getattr(upload, "flush", _nothing)()
        return OpenUpload(None, Path(str(temporary_path())), True, size)
    file = upload
    while (inner := getattr(file, "file", None)) is not None and hasattr(inner, "read"):
        file = inner
    read = getattr(file, "read", None)
    if read is None or inspect.iscoroutinefunction(read):
        raise InvalidRequestError(f"upload: needs {_NEEDS}, got {short_repr(upload)}")
    if getattr(file, "closed", False):
        raise InvalidRequestError(
            "upload: is closed; frameworks close uploads at the end of their request: spool before"
        )
    if _can_seek(file):
        file.seek(0)  # whoever looked at its first bytes has left it anywhere
    return OpenUpload(file, None, False, size)


def _can_seek(file: Any) -> bool:
    # SpooledTemporaryFile has no seekable() before Python 3.11.
    return bool(file.seekable()) if hasattr(file, "seekable") else hasattr(file, "seek")


def _nothing() -> None:
    """For an upload without ``flush``."""
