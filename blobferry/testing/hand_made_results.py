"""What a job says that was ended by hand: the result of each operation, and codes of errors."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from hashlib import md5
from typing import Any

from blobferry import errors
from blobferry.errors import BlobferryError


def result_by_hand(row: Mapping[str, Any], *, size: int, etag: str | None) -> dict[str, Any]:
    """The result of a job in this row, in the form that a run gives it.

    ``etag``: of the blob; one is made up unless given, the same for the same job.
    """
    path = row["path"]
    if row["operation"] == "delete":
        return {"path": path}
    etag = etag or f'"{md5(row["id"].encode(), usedforsecurity=False).hexdigest()}"'
    if row["operation"] == "read_stream":
        return {"path": path, "dest": row["dest"], "size": size, "etag": etag}
    return {"path": path, "size": size, "etag": etag, "version_id": None}


def code_and_message(error: str | BlobferryError, message: str | None) -> tuple[str, str]:
    """What a row says of an error, given as itself or by its code. Raises ValueError for an unknown code."""
    if isinstance(error, BlobferryError):
        return error.code, str(error) if message is None else message
    known = sorted({kind.code for kind in _kinds(errors.BlobferryError)})
    if error not in known:
        close = get_close_matches(error, known, n=1)
        meant = f", did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{error!r} is the code of no error{meant}; there are: {', '.join(known)}")
    return error, f"{error}, as the test wants it" if message is None else message


def _kinds(kind: type[BlobferryError]) -> Iterator[type[BlobferryError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
